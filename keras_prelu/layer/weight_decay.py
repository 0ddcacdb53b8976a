"""Weight decay that leaves slopes alone."""

import keras

from keras_prelu.layer.slopes import slope_layers


def exclude_slopes_from_weight_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Makes an optimizer leave all the slopes of a model out of its weight decay.

    Weight decay pulls slopes to 0 and so makes ReLUs of them; the paper uses none on them. What was excluded before
    stays excluded; `optimizer.exclude_from_weight_decay` itself forgets it, so call that one first.

    Args:
        optimizer: Any Keras optimizer before its first step. Of `LossScaleOptimizer` the inner one is told.
        model: A built model, with slopes of `keras_prelu.PReLU` and `keras.layers.PReLU` anywhere in it.

    Raises:
        ValueError: An optimizer that is built already, or a model that is not.

    Example:
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
            f"The optimizer {optimizer.name!r} is built already and has settled what decays: exclude the slopes after "
            "the model is built, but before the optimizer takes its first step."
        )
    # Keras replaces what it excluded before, and has no public name for it.
    excluded = set(getattr(optimizer, "_exclude_from_weight_decay", ()))
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    optimizer.exclude_from_weight_decay(
        var_list=[layer.alpha for layer in slope_layers(model)],
        var_names=None if pattern is None else [pattern.pattern],
    )
    optimizer._exclude_from_weight_decay.update(excluded)
