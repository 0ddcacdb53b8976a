"""The effect of a layer's kernels on signals, for their current weights and for weights that are yet to be drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_prelu.walk.attention import attended, attended_gradient
from keras_prelu.walk.fans import ATTENTION, DEPTHWISE, TRANSPOSED, fans, mean_square
from keras_prelu.walk.graph import Call
from keras_prelu.walk.positions import NEAR, AxisMap, convolution
from keras_prelu.walk.residuals import Scales
from keras_prelu.walk.signal import Obstacle, Signal, State

_FEW = 64  # inputs of a channel; with more, the channels' variances are alike


class AsDrawn:
    """Kernels that are about to be drawn, so that their outputs, and the gradients at their inputs, have variance s^2.

    Args:
        scales: s at the ends of residual branches; it is 1 elsewhere.
    """

    def __init__(self, scales: Scales) -> None:
        self._forward: Mapping[int, float] = scales.forward
        self._backward: Mapping[int, float] = scales.backward

    def forward(self, call: Call, arriving: State) -> State:
        """A signal of variance s^2 in which images are as alike as they were."""
        variance = self._forward.get(call.outputs[0], 1.0) ** 2
        if isinstance(arriving, Obstacle) or arriving.second_moment == 0:
            return Signal.noise(variance)
        mixed = arriving.mixed().bare()
        return replace(mixed.times(variance / mixed.second_moment), mean=np.zeros(1))

    def backward(self, call: Call, gradient: State, arriving: State) -> State:
        """A gradient of variance s^2."""
        return Signal.noise(self._backward.get(call.outputs[0], 1.0) ** 2)


class AsTheyAre:
    """Kernels with the weights that they have, which count as independent of each other and of the signal."""

    def forward(self, call: Call, arriving: State) -> State:
        """Multiplies the second moment that arrives by n E[w^2] (equation 7), and adds the bias."""
        if isinstance(arriving, Obstacle):
            return arriving
        signal = arriving.bare() if isinstance(call.operation, DEPTHWISE) else arriving.mixed().bare()
        if isinstance(call.operation, ATTENTION):
            return attended(call, signal)
        factor, _ = kernel_factors(call)
        leaving = signal.moved(_maps(call, backward=False)).times(factor)
        leaving = replace(leaving, mean=np.zeros_like(signal.mean), unevenness=_unevenness(call, signal))
        return _biased(call, leaving)

    def backward(self, call: Call, gradient: State, arriving: State) -> State:
        """Multiplies the second moment of the gradient by n E[w^2], with n the fan-out (equation 12).

        Where a normalization has divided the gradient by the variances of the channels, the channels with large weights
        have small gradients, so that their products vary less than both.
        """
        if isinstance(gradient, Obstacle):
            return gradient
        mixed = gradient.mixed().bare()
        if isinstance(call.operation, ATTENTION):
            return attended_gradient(call, mixed, arriving)
        _, factor = kernel_factors(call)
        return mixed.moved(_maps(call, backward=True)).times(factor / gradient.unevenness)


def kernel_factors(call: Call) -> tuple[float, float]:
    """The products of fan_in E[w^2] and of fan_out E[w^2] over the kernels that a layer applies in turn."""
    rows = fans(call.operation)
    if any(row.layer is not call.operation for row in rows):
        return math.nan, math.nan
    squares = [mean_square(row.kernel) for row in rows]
    return (
        math.prod(row.fan_in * square for row, square in zip(rows, squares, strict=True)),
        math.prod(row.fan_out * square for row, square in zip(rows, squares, strict=True)),
    )


def _maps(call: Call, backward: bool) -> Sequence[AxisMap]:
    """The effect of a convolution's padding and strides along each position axis."""
    layer: Any = call.operation
    size = getattr(layer, "kernel_size", None)
    if size is None:
        return ()
    channels_first = layer.data_format == "channels_first"
    shape, outputs = call.input_shapes[0], call.output_shape
    own, given = (each[2:] if channels_first else each[1:-1] for each in (shape, outputs))
    if isinstance(layer, TRANSPOSED):  # the gradient of a convolution from its outputs to its inputs
        maps = [
            convolution(length, window, stride, dilation, layer.padding, not backward)
            for length, window, stride, dilation in zip(given, size, layer.strides, layer.dilation_rate, strict=False)
        ]
        strides = layer.strides  # which the fan_in is divided by
        return maps if backward else [_times(each, stride) for each, stride in zip(maps, strides, strict=False)]
    return [
        convolution(length, window, stride, dilation, layer.padding, backward)
        for length, window, stride, dilation in zip(own, size, layer.strides, layer.dilation_rate, strict=False)
    ]


def _unevenness(call: Call, arriving: Signal) -> float:
    """E[v] E[1 / v] of the variances v of a convolution's channels; they differ where each sums over few inputs."""
    rows = fans(call.operation)
    size = getattr(call.operation, "kernel_size", ())
    few = len(rows) == 1 and rows[0].fan_in <= _FEW and not isinstance(call.operation, TRANSPOSED)
    if not (few and size and len(size) == arriving.axes):
        return 1.0
    mixed = arriving.mixed()
    covariances = _between_taps(mixed.near[0] - mixed.others[0], size, call.operation.dilation_rate)
    kernel = np.asarray(ops.convert_to_numpy(ops.cast(rows[0].kernel, "float32")), "float64")
    weights = kernel.reshape(len(covariances), *kernel.shape[-2:])
    variances = np.einsum("tio,tio->io", weights, np.tensordot(covariances, weights, 1))
    variances = variances.ravel() if isinstance(call.operation, DEPTHWISE) else variances.sum(axis=0)
    variances = np.maximum(variances, 1e-6 * np.abs(variances).mean())
    return float(variances.mean() * np.mean(1 / variances)) if variances.all() else 1.0


def _between_taps(covariances: Any, size: Sequence[int], dilation: Sequence[int]) -> Any:
    """The covariance of the inputs of each two taps of a kernel, from that by distance; shape `(taps, taps)`."""
    taps = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).reshape(-1, len(size))
    distances = np.abs(taps[:, np.newaxis] - taps) * np.asarray(dilation)
    return covariances[tuple(np.moveaxis(np.minimum(distances, NEAR + 1), -1, 0))]


def _times(axis: AxisMap, factor: float) -> AxisMap:
    return AxisMap(tuple(math.sqrt(factor) * tap for tap in axis.taps))


def _biased(call: Call, signal: Signal) -> Signal:
    bias = getattr(call.operation, "bias", None)
    if bias is None or not isinstance(call.operation, keras.Layer):
        return signal
    values = np.asarray(ops.convert_to_numpy(ops.cast(bias, "float32")), "float64")
    return signal.affine(1.0, float(values.mean()), 1.0, float(np.square(values).mean())) if values.any() else signal
