"""What equations 7 to 15 predict of a model's signal and gradient, from its weights and slopes as they are."""

import dataclasses
import math
import sys
from collections import defaultdict

import keras
import numpy as np

from keras_prelu.initialization.fans import fans
from keras_prelu.initialization.graph import Call, Graph, trace
from keras_prelu.initialization.moments import (
    Obstacle,
    Signal,
    activated,
    backward,
    forward,
    has_kernel,
    mean_of,
    normalizes,
    sum_of,
)
from keras_prelu.layer.slopes import slope_layers
from keras_prelu.text_table import text_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerGain:
    """What is predicted for one layer with a kernel; not a number (NaN) where it cannot be.

    Attributes:
        name: The layer's path in the model.
        slope_before: Negative slope a of the rectifier before it: 1 where there is none.
        slope_after: Negative slope of the rectifier after it, likewise.
        forward_gain: Factor on the forward variance, n_in E[w^2] (1 + a^2) / 2 with a the slope before.
        backward_gain: Factor on the gradient's, n_out E[w^2] (1 + a^2) / 2 with a the slope after.
        forward_mean_square: Mean square of the layer's output before any activation, with one of 1 at the model's
            input: the product of the forward gains up to here in a chain of layers.
        backward_mean_square: Mean square of the gradient with respect to that output, with one of 1 at the model's
            outputs.
    """

    name: str
    slope_before: float
    slope_after: float
    forward_gain: float
    backward_gain: float
    forward_mean_square: float
    backward_mean_square: float


@dataclasses.dataclass(frozen=True)
class GainReport:
    """The layers with a kernel in the order of their calls; `str()` of it is its table."""

    rows: tuple[LayerGain, ...]

    def table(self) -> str:
        """The rows as aligned text."""
        header = ["layer", "slope before", "after", "forward gain", "product", "backward gain", "product"]
        return text_table(
            header,
            [
                (
                    row.name,
                    row.slope_before,
                    row.slope_after,
                    row.forward_gain,
                    row.forward_mean_square,
                    row.backward_gain,
                    row.backward_mean_square,
                )
                for row in self.rows
            ],
        )

    def __str__(self) -> str:
        return self.table()


def predict_gains(model: keras.Model) -> GainReport:
    """Predicts how a model's variance changes from layer to layer, forward and backward.

    In the forward direction a layer multiplies it by $n E[w^2] (1 + a^2) / 2$ (equations 7 to 10 and 15) with n the
    fan-in and a the slope of the rectifier before the layer; in the backward direction with the fan-out and the slope
    after it (equations 12 to 15). $E[w^2]$ is the mean square of the weights as they are, and a that of the slopes.
    Where a network is no chain, sums add the variances and the means of their terms, and normalizations set the
    variance to 1.

    The equations take weights as independent of what comes in, biases as 0, and every layer as wide; so they tell of a
    network at its start more than of a trained one. Poolings, strides, dropout and the zeros of padding they leave
    out: `measure_gains` sees them. Inside attention and recurrent layers nothing is predicted, nor after them or
    after an activation that is no rectifier, up to the next normalization.

    Args:
        model: A built functional or Sequential model, nested ones included.

    Returns:
        The gains and their products. `print` shows the table, `rows` holds the numbers.

    Raises:
        ValueError: A model without a graph, not built or subclassed, or one with slopes that are not built.

    Example:
        >>> model = keras.Sequential([keras.Input((4,))])
        >>> for name in ("fc1", "fc2", "fc3"):
        ...     model.add(keras.layers.Dense(4, "relu", kernel_initializer="ones", name=name))
        >>> print(predict_gains(model))
        layer  slope before  after  forward gain  product  backward gain  product
        fc1               1      0             4        4              2        2
        fc2               0      0             2        8              2        1
        fc3               0      0             2       16              2      0.5

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, equations 7 to 15.
    """
    graph = trace(model)
    slope_layers(model)  # refuses a PReLU given as a layer's activation, which Keras builds when it first runs
    signals, before = _walk_forward(graph)
    after = _walk_backward(graph, signals)
    calls: dict[int, list[Call]] = defaultdict(list)
    for call in graph.calls:
        if has_kernel(call):
            calls[id(call.operation)].append(call)
    return GainReport(
        tuple(
            _row(of_layer[0], mean_of([before[call] for call in of_layer]), mean_of([after[call] for call in of_layer]))
            for of_layer in calls.values()
        )
    )


def _row(call: Call, before: Signal | Obstacle, after: Signal | Obstacle) -> LayerGain:
    """A layer's row; its mean squares follow from what arrives at it."""
    forward_factor, backward_factor = _kernel_factors(call)
    slope_before, slope_after = _slope(before), _slope(after)
    return LayerGain(
        name=call.path,
        slope_before=slope_before,
        slope_after=slope_after,
        forward_gain=forward_factor * (1 + slope_before**2) / 2,
        backward_gain=backward_factor * (1 + slope_after**2) / 2,
        forward_mean_square=forward_factor * _second_moment(before),
        backward_mean_square=_second_moment(after),
    )


def _walk_forward(graph: Graph) -> tuple[dict[int, Signal | Obstacle], dict[Call, Signal | Obstacle]]:
    """The signal that each tensor is, and the one at each call's inputs."""
    data = Signal()
    signals: dict[int, Signal | Obstacle] = dict.fromkeys(graph.inputs, data)
    before = {}
    for call in graph.calls:
        arriving = [signals[tensor] for tensor in call.inputs]
        before[call] = mean_of(arriving)
        if has_kernel(call):
            leaving = activated(call, _scaled(before[call], _kernel_factors(call)[0]), to_loss=False)
        else:
            leaving = forward(call, arriving, data)
        signals.update(dict.fromkeys(call.outputs, leaving))
    return signals, before


def _walk_backward(graph: Graph, signals: dict[int, Signal | Obstacle]) -> dict[Call, Signal | Obstacle]:
    """The gradient at each call's outputs, before its own activation."""
    gradients: dict[int, list[Signal | Obstacle]] = defaultdict(list)
    for tensor in graph.outputs:
        gradients[tensor].append(Signal())
    consumed = {tensor for call in graph.calls for tensor in call.inputs}
    after = {}
    for call in reversed(graph.calls):
        to_loss = consumed.isdisjoint(call.outputs)
        after[call] = arriving = sum_of([gradient for tensor in call.outputs for gradient in gradients[tensor]])
        if has_kernel(call):
            after[call] = activated(call, arriving, to_loss)
            leaving: Signal | Obstacle = _scaled(after[call], _kernel_factors(call)[1])
        elif normalizes(call):  # the gradient is divided by what the signal is divided by
            leaving = _scaled(arriving, 1 / _normalized(call, signals[call.inputs[0]]))
        else:
            leaving = backward(call, arriving, to_loss)
        for tensor in call.inputs:
            gradients[tensor].append(leaving)
    return after


def _kernel_factors(call: Call) -> tuple[float, float]:
    """The products of fan_in E[w^2] and of fan_out E[w^2] over the kernels that a layer applies in turn."""
    rows = fans(call.operation)
    if any(row.layer is not call.operation for row in rows) or hasattr(call.operation, "recurrent_kernel"):
        return math.nan, math.nan
    squares = [
        float(np.mean(np.square(keras.ops.convert_to_numpy(keras.ops.cast(row.kernel, "float32")), dtype="float64")))
        for row in rows
    ]
    forward_factor = math.prod(row.fan_in * square for row, square in zip(rows, squares, strict=True))
    backward_factor = math.prod(row.fan_out * square for row, square in zip(rows, squares, strict=True))
    return forward_factor, backward_factor


def _scaled(signal: Signal | Obstacle, factor: float) -> Signal:
    """A signal without a rectifier, of this multiple of another one's mean square."""
    variance = factor * _second_moment(signal)
    return Signal(variance if math.isnan(variance) else max(variance, sys.float_info.min))  # sums divide by it


def _second_moment(signal: Signal | Obstacle) -> float:
    return signal.second_moment if isinstance(signal, Signal) else math.nan


def _normalized(call: Call, signal: Signal | Obstacle) -> float:
    """The square of the divisor of a normalization: the variance, or the mean square of `RMSNormalization`."""
    if isinstance(signal, Obstacle) or isinstance(call.operation, keras.layers.RMSNormalization):
        return _second_moment(signal)
    return signal.variance_after


def _slope(signal: Signal | Obstacle) -> float:
    return signal.negative_slope if isinstance(signal, Signal) else math.nan
