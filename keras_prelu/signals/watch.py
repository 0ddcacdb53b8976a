"""Functions that see what passes the layers of a running model."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_prelu.keras_internals import flatten_layers, replaced
from keras_prelu.layer.prelu import PReLU
from keras_prelu.walk.activations import negative_slope
from keras_prelu.walk.fans import layer_kernels

SeePreactivation = Callable[[keras.Layer, Any], Any]
SeeRectifier = Callable[[keras.Layer, Any, Any], None]


@contextlib.contextmanager
def watched(
    model: keras.Model, see_preactivation: SeePreactivation, see_rectifier: SeeRectifier | None = None
) -> Iterator[None]:
    """Within it, functions see the outputs of a model's layers whenever they run.

    Args:
        model: Any model; subclassed ones too, since each layer is watched on its own.
        see_preactivation: A function of a layer with a kernel and its output before any activation. The layer computes
            on with the tensor that it returns.
        see_rectifier: A function of a rectifier (or a layer whose own activation is one), its input and its output.
    """
    with contextlib.ExitStack() as stack:
        for layer in flatten_layers(model):
            if layer_kernels(layer):
                stack.enter_context(_preactivation_watched(layer, see_preactivation, see_rectifier))
            elif see_rectifier is not None and _is_rectifier(layer):
                stack.enter_context(_rectifier_watched(layer, see_rectifier))
        yield


def _preactivation_watched(
    layer: Any, see_preactivation: SeePreactivation, see_rectifier: SeeRectifier | None
) -> contextlib.AbstractContextManager[None]:
    call: Callable[..., Any] = layer.call
    activation: Any = getattr(layer, "activation", None)
    if activation in (None, keras.activations.linear):
        return replaced(layer, "call", lambda *args, **kwargs: see_preactivation(layer, call(*args, **kwargs)))
    own = not isinstance(activation, keras.Layer) and _is_rectifier(activation)  # a layer is watched by itself

    def watched_activation(values: Any) -> Any:
        values = see_preactivation(layer, values)
        outputs = activation(values)
        if own and see_rectifier is not None:
            see_rectifier(layer, values, outputs)
        return outputs

    return replaced(layer, "activation", watched_activation)


def _rectifier_watched(layer: Any, see_rectifier: SeeRectifier) -> contextlib.AbstractContextManager[None]:
    call = layer.call

    def watched_call(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        see_rectifier(layer, args[0] if args else kwargs["inputs"], outputs)
        return outputs

    return replaced(layer, "call", watched_call)


def _is_rectifier(activation: Any) -> bool:
    # A learnt slope may be 1 for a while; of other activations, a slope of 1 means a linear one.
    return isinstance(activation, PReLU | keras.layers.PReLU) or negative_slope(activation) not in (None, 1.0)


@contextlib.contextmanager
def state_kept(model: keras.Model) -> Iterator[None]:
    """Puts back the state that a run changes: moving averages, and the seeds that dropout draws from."""
    state = [(variable, np.array(ops.convert_to_numpy(variable))) for variable in model.non_trainable_variables]
    try:
        yield
    finally:
        for variable, values in state:
            variable.assign(values)
