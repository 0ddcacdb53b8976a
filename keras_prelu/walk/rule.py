"""The form of the rules by which signals pass layers without a kernel."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras

from keras_prelu.walk.graph import Call
from keras_prelu.walk.signal import Signal


@dataclass(frozen=True)
class Setting:
    """How a model runs.

    Attributes:
        training: Whether dropout drops and normalizations add their epsilon, as in a running model.
        images: The number of images in a batch.
    """

    training: bool
    images: float = math.inf


@dataclass(frozen=True)
class Rule:
    """The effect of one kind of call.

    Attributes:
        forward: From the call, the signals at its inputs and the setting, to the signal at its output.
        backward: From the call, the gradient at its output, the signals at its inputs and the setting, to the gradient
            at each input.
    """

    forward: Callable[[Call, Sequence[Signal], Setting], Signal]
    backward: Callable[[Call, Signal, Sequence[Signal], Setting], list[Signal]]


def position_sizes(call: Call, place: int = 0) -> tuple[int | None, ...]:
    """The position axes of an input."""
    shape = call.input_shapes[place]
    data_format = getattr(call.operation, "data_format", None) or keras.config.image_data_format()
    return tuple(shape[2:] if data_format == "channels_first" else shape[1:-1])
