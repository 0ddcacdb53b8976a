"""The layers of a model whose slopes are learnt, and weight decay that leaves these alone."""

import keras
import numpy as np

from keras_prelu.keras_internals import exclude_from_weight_decay, flatten_layers
from keras_prelu.layer.prelu import PReLU


def slope_layers(model: keras.Model) -> list[keras.Layer]:
    """Finds the rectifiers of a model whose slopes are learnt, each once.

    Args:
        model: A built model of any kind, nested models and composite layers included.

    Returns:
        Its `keras_prelu.PReLU` and `keras.layers.PReLU` layers; each has its slopes in `alpha`.

    Raises:
        ValueError: A model that is not built, which has no slopes yet.

    Examples:
        >>> model = keras.Sequential([keras.Input((3,)), PReLU(name="prelu"), keras.layers.ReLU()])
        >>> [layer.name for layer in slope_layers(model)]
        ['prelu']
    """
    layers = [layer for layer in flatten_layers(model) if isinstance(layer, PReLU | keras.layers.PReLU)]
    if not model.built or not all(layer.built for layer in layers):
        raise ValueError(
            f"Model {model.name!r} is not built and has no slopes yet: give it a keras.Input, or call it on a batch."
        )
    return layers


def slope_values(rectifier: keras.Layer) -> np.ndarray:
    """The slopes of one of `slope_layers` as an array of one axis."""
    return np.ravel(keras.ops.convert_to_numpy(rectifier.alpha))


def exclude_slopes_from_weight_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Excludes all the slopes of a model from an optimizer's weight decay.

    Weight decay would pull slopes to 0, which makes a ReLU of a PReLU; the paper does not decay them. Variables that
    were excluded before stay excluded. `optimizer.exclude_from_weight_decay` itself forgets earlier exclusions, so call
    it first.

    Args:
        optimizer: Any Keras optimizer before its first step. Of a `LossScaleOptimizer`, the inner one excludes them.
        model: A built model, with slopes of `keras_prelu.PReLU` and `keras.layers.PReLU` anywhere in it.

    Raises:
        ValueError: An optimizer that is built already, or a model that is not.

    Examples:
        >>> from keras_prelu import PReLU
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), PReLU()])
        >>> optimizer = keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=5e-4)
        >>> exclude_slopes_from_weight_decay(optimizer, model)
        >>> model.compile(optimizer, "mse")

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 2.1, "Optimization".
    """
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if optimizer.built:
        raise ValueError(
            f"The optimizer {optimizer.name!r} is built already and knows what decays: exclude the slopes after the "
            "model is built, but before the optimizer takes its first step."
        )
    exclude_from_weight_decay(optimizer, [layer.alpha for layer in slope_layers(model)])
