"""What each layer between two kernels does to the second moment of a signal, forward and backward."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prelu.initialization.fans import LINEAR_LAYERS, fans
from keras_prelu.initialization.graph import Call
from keras_prelu.layer.functional import PReLUFunction
from keras_prelu.layer.pooling import SpatialPyramidPooling2D
from keras_prelu.layer.prelu import PReLU

_ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU)

# Counted as passing a second moment on, as the paper does. Poolings and dropout do change it, by a factor that depends
# on how alike neighbouring values are, or on whether the network trains; it comes once a stage, not at every layer, and
# so does not grow with depth. An average is at most its inputs' second moment.
_PASSING = (
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise, layers.ActivityRegularization),
    *(layers.Identity, layers.Masking),
    *(layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.AdaptiveMaxPooling1D, layers.AdaptiveMaxPooling2D, layers.AdaptiveMaxPooling3D),
    *(layers.AdaptiveAveragePooling1D, layers.AdaptiveAveragePooling2D, layers.AdaptiveAveragePooling3D),
    SpatialPyramidPooling2D,
)
NORMALIZING = (
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization, layers.RMSNormalization),
    layers.Normalization,
)

# Operations of keras.ops on symbolic tensors; their classes have no public names.
_SUMMING_OPERATIONS = ("Add", "Subtract")
_PASSING_OPERATIONS = ("Reshape", "Transpose", "Squeeze", "ExpandDims", "Flip", "Cast", "GetItem")
_RECTIFYING_OPERATIONS = ("Relu", "Relu6", "LeakyRelu", "ReLU")


@dataclass(frozen=True)
class Signal:
    """The output of a rectifier whose input is normally distributed; or a gradient, which has no mean.

    Attributes:
        variance: The variance before the rectifier.
        negative_slope: The rectifier's slope; 1 where there was none.
        shift: The mean before the rectifier: 0, unless outputs of rectifiers were added up there.
    """

    variance: float = 1.0
    negative_slope: float = 1.0
    shift: float = 0.0

    @property
    def mean(self) -> float:
        """The mean after the rectifier; (1 - a) sqrt(variance / (2 pi)) without a shift."""
        positive, _ = self._positive_part()
        return positive + self.negative_slope * (self.shift - positive)

    @property
    def second_moment(self) -> float:
        """The mean square after the rectifier; (1 + a^2) / 2 times the variance before it without a shift."""
        _, positive = self._positive_part()
        return positive + self.negative_slope**2 * (self.variance + self.shift**2 - positive)

    @property
    def variance_after(self) -> float:
        """The variance after the rectifier. It is never 0, as what follows divides by it."""
        return max(self.second_moment - self.mean**2, sys.float_info.min)

    def _positive_part(self) -> tuple[float, float]:
        """The mean and the mean square that positive values before the rectifier contribute."""
        deviation = math.sqrt(self.variance)
        standardized = self.shift / deviation if self.shift else 0.0
        probability = (1 + math.erf(standardized / math.sqrt(2))) / 2
        density = math.exp(-(standardized**2) / 2) / math.sqrt(2 * math.pi)
        mean = self.shift * probability + deviation * density
        return mean, self.variance * probability + self.shift * mean


@dataclass(frozen=True)
class Obstacle:
    """Where a layer stands whose effect on a second moment is not known.

    Attributes:
        path: The layer's path.
        kind: The layer's class.
    """

    path: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


def negative_slope(activation: Any) -> float | None:
    """The slope of a rectifier for negative inputs.

    A function is tried on numbers, so that any spelling of a rectifier is found: `keras.activations.relu`,
    `"leaky_relu"`, a partial or a function of one's own. One that is a rectifier up to 4, as `relu6`, counts as one: a
    signal of unit variance hardly ever goes beyond.

    Args:
        activation: A layer, a function, a name, or None.

    Returns:
        The slope, 0 for ReLU and 1 for a linear activation or None; the root of the mean square of slopes that a
        layer has several of, since second moments are linear in it. None where the activation is no rectifier.

    Example:
        >>> import keras
        >>> [negative_slope(activation) for activation in ("relu", "linear", "gelu", keras.layers.LeakyReLU(0.5))]
        [0.0, 1.0, None, 0.5]
    """
    if isinstance(activation, PReLU | layers.PReLU):
        return _root_mean_square(activation.alpha)
    if isinstance(activation, layers.LeakyReLU):
        return float(activation.negative_slope)
    if isinstance(activation, _ACTIVATIONS):
        function = activation.call
    elif isinstance(activation, keras.Layer):
        return None
    else:
        function = keras.activations.get(activation)
    points = np.array([-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0], "float32")
    values = ops.convert_to_numpy(function(ops.convert_to_tensor(points)))
    slope = round(0.0 - float(values[2]), 6)
    rectified = np.where(points > 0, points, slope * points)
    return slope if values.shape == points.shape and np.allclose(values, rectified, rtol=1e-5) else None


def forward(call: Call, arriving: Sequence[Signal | Obstacle], data: Signal) -> Signal | Obstacle:
    """What a call without a kernel makes of the signals that arrive at it.

    Args:
        call: The call.
        arriving: A signal for each of its inputs.
        data: The signal that stands for the model's inputs. Whatever is done to these before the first kernel counts
            as their preprocessing and leaves it as it is.

    Returns:
        The signal of its outputs; an obstacle where it is not known.
    """
    if normalizes(call):
        return Signal()
    obstacle = _first_obstacle(arriving)
    if obstacle is not None:
        return obstacle
    signals = [signal for signal in arriving if isinstance(signal, Signal)]
    slope = _rectifier_slope(call)
    if slope is not None:
        return rectified(signals[0], slope)
    if sums(call):
        return total(signals, subtract=_subtracts(call))
    if _is_concatenation(call):
        return mean(signals, _shares(call))
    if _passes(call) or (all(signal is data for signal in signals) and not _learns(call)):
        return signals[0]
    factor = _factor(call)
    if factor is not None:
        return _scaled(total(signals), factor)
    return Obstacle(call.path, type(call.operation).__name__)


def backward(call: Call, arriving: Signal | Obstacle, to_loss: bool) -> Signal | Obstacle:
    """What a call without a kernel makes of the gradient that arrives at it from above.

    A normalization hands on a gradient of variance 1: the scale of what is below it does not matter to the gradient.

    Args:
        call: The call.
        arriving: The gradient with respect to its outputs.
        to_loss: Whether its output goes to the loss only. An activation there, as a softmax, belongs to the loss.

    Returns:
        The gradient with respect to each of its inputs; an obstacle where it is not known.
    """
    if isinstance(arriving, Obstacle):
        return arriving
    slope = _rectifier_slope(call)
    if slope is not None:
        return rectified(arriving, slope)
    if normalizes(call):
        return replace(arriving, variance=1.0)
    factor = _factor(call)
    if factor is not None:
        return _scaled(arriving, factor)
    if sums(call) or _is_concatenation(call) or _passes(call):
        return arriving
    if to_loss and isinstance(call.operation, layers.Activation | layers.Softmax):
        return arriving
    return Obstacle(call.path, type(call.operation).__name__)


def rectified(signal: Signal, slope: float) -> Signal:
    """A signal after a rectifier; the slopes of two in a row multiply, as do their derivatives."""
    return replace(signal, negative_slope=signal.negative_slope * slope)


def total(signals: Sequence[Signal], subtract: bool = False) -> Signal:
    """The sum of independent signals, as normally distributed: their variances add up, and so do their means.

    Behind rectifiers the means are not 0, and the second moment of a sum of n such signals grows with n^2.

    Args:
        signals: The terms.
        subtract: Whether all terms but the first are subtracted.
    """
    if len(signals) == 1:
        return signals[0]
    signs = [1] + [-1 if subtract else 1] * (len(signals) - 1)
    variance = sum(signal.variance_after for signal in signals)
    mean = sum(sign * signal.mean for sign, signal in zip(signs, signals, strict=True))
    return Signal(variance, shift=mean)


def add(signals: Sequence[Signal]) -> Signal:
    """The sum of independent gradients: their variances and their second moments add up."""
    variance = sum(signal.variance for signal in signals)
    squares = sum(signal.variance * signal.negative_slope**2 for signal in signals)
    return Signal(variance, math.sqrt(squares / variance))


def mean(signals: Sequence[Signal], shares: Iterable[float] | None = None) -> Signal:
    """Signals side by side, or in turn: the mean of their variances and of their second moments."""
    shares = [1 / len(signals)] * len(signals) if shares is None else list(shares)
    pairs = list(zip(signals, shares, strict=True))
    if not any(signal.shift for signal in signals):
        return add([replace(signal, variance=share * signal.variance) for signal, share in pairs])
    shift = sum(share * signal.mean for signal, share in pairs)
    squares = sum(share * signal.second_moment for signal, share in pairs)
    return Signal(max(squares - shift**2, sys.float_info.min), shift=shift)


def sum_of(signals: Sequence[Signal | Obstacle]) -> Signal | Obstacle:
    """The sum of gradients, or the first obstacle among them."""
    return _first_obstacle(signals) or add([signal for signal in signals if isinstance(signal, Signal)])


def mean_of(signals: Sequence[Signal | Obstacle]) -> Signal | Obstacle:
    """The mean of signals, or the first obstacle among them."""
    return _first_obstacle(signals) or mean([signal for signal in signals if isinstance(signal, Signal)])


def activated(call: Call, signal: Signal | Obstacle, to_loss: bool) -> Signal | Obstacle:
    """A signal after the activation that a layer with a kernel applies to its own outputs; or a gradient before it."""
    activation = getattr(call.operation, "activation", None)
    slope = negative_slope(activation)
    if isinstance(signal, Obstacle) or (slope is None and to_loss):  # a softmax at the end belongs to the loss
        return signal
    name = getattr(activation, "__name__", type(activation).__name__)
    return Obstacle(call.path, name) if slope is None else rectified(signal, slope)


def has_kernel(call: Call) -> bool:
    """Whether a call is of a layer whose kernels decide the variance of its outputs."""
    return isinstance(call.operation, LINEAR_LAYERS) and bool(fans(call.operation))


def sums(call: Call) -> bool:
    """Whether a call adds up its inputs, or subtracts them."""
    by_name = _operation_name(call) in _SUMMING_OPERATIONS and len(call.inputs) > 1
    return isinstance(call.operation, layers.Add | layers.Subtract) or by_name


def _subtracts(call: Call) -> bool:
    return isinstance(call.operation, layers.Subtract) or _operation_name(call) == "Subtract"


def normalizes(call: Call) -> bool:
    """Whether a call gives unit variance whatever it is given."""
    return isinstance(call.operation, NORMALIZING)


def _first_obstacle(signals: Sequence[Signal | Obstacle]) -> Obstacle | None:
    return next((signal for signal in signals if isinstance(signal, Obstacle)), None)


def _rectifier_slope(call: Call) -> float | None:
    if isinstance(call.operation, PReLUFunction):
        return _root_mean_square(call.constants[0]) if call.constants else None
    is_layer = isinstance(call.operation, (*_ACTIVATIONS, PReLU, layers.PReLU))
    is_rectifier = is_layer or _operation_name(call) in _RECTIFYING_OPERATIONS
    return negative_slope(call.operation) if is_rectifier else None


def _root_mean_square(slopes: Any) -> float:
    return math.sqrt(np.mean(np.square(ops.convert_to_numpy(slopes), dtype="float64")))


def _passes(call: Call) -> bool:
    return isinstance(call.operation, _PASSING) or _operation_name(call) in _PASSING_OPERATIONS


def _factor(call: Call) -> float | None:
    """What a call that multiplies the sum of its inputs by a constant multiplies it by."""
    if isinstance(call.operation, layers.Average):
        return 1 / len(call.inputs)
    if isinstance(call.operation, layers.Rescaling) and not np.any(call.operation.offset):
        return _root_mean_square(call.operation.scale)
    return None


def _scaled(signal: Signal, factor: float) -> Signal:
    return replace(signal, variance=factor**2 * signal.variance, shift=factor * signal.shift)


def _is_concatenation(call: Call) -> bool:
    return isinstance(call.operation, layers.Concatenate) or _operation_name(call) == "Concatenate"


def _shares(call: Call) -> list[float] | None:
    """Which part of a concatenation each input is; None, for equal parts, where a size is unknown."""
    sizes = [shape[call.operation.axis] for shape in call.input_shapes]
    known = [size for size in sizes if size is not None]
    return [size / sum(known) for size in known] if len(known) == len(sizes) else None


def _learns(call: Call) -> bool:
    return isinstance(call.operation, keras.Layer) and bool(call.operation.trainable_variables)


def _operation_name(call: Call) -> str:
    return "" if isinstance(call.operation, keras.Layer) else type(call.operation).__name__
