"""The effect of pooling, padding, reshaping and resizing on a signal and on a gradient.

A signal without position axes is that at one position: it passes unchanged.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from keras_prelu.keras_internals import operation_name
from keras_prelu.layer.pooling import SpatialPyramidPooling2D, window_and_stride
from keras_prelu.walk.graph import Call
from keras_prelu.walk.pooling import (
    Window,
    at_one_position,
    max_pooled,
    max_pooled_gradient,
    spread,
    without_axes,
)
from keras_prelu.walk.positions import resized
from keras_prelu.walk.rule import Rule, Setting, position_sizes
from keras_prelu.walk.signal import Signal, added, broadcast, concatenated

GLOBAL_MEAN = (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
GLOBAL_MAX = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)
GLOBAL = GLOBAL_MEAN + GLOBAL_MAX


def _each(value: Any, number: int) -> tuple[Any, ...]:
    return (value,) * number if isinstance(value, int) else tuple(value)


def _windows(call: Call) -> list[Window]:
    operation, sizes = call.operation, position_sizes(call)
    if isinstance(operation, GLOBAL) or operation_name(call.operation) in ("Mean", "Max"):
        return [Window(size, size or 16, size or 16) for size in sizes]
    if hasattr(operation, "output_size"):  # of adaptive pooling
        targets = _each(operation.output_size, len(sizes))
        return [Window(size, *window_and_stride(size, target)) for size, target in zip(sizes, targets, strict=True)]
    windows = _each(operation.pool_size, len(sizes))
    strides = windows if operation.strides is None else _each(operation.strides, len(sizes))
    return [
        Window(size, window, stride, operation.padding)
        for size, window, stride in zip(sizes, windows, strides, strict=True)
    ]


def _averaged(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    return signals[0].moved([window.mean() for window in _windows(call)])


def _averaged_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    return [gradient.moved([window.mean(backward=True) for window in _windows(call)])]


def _mean_over_all(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    pooled = without_axes(signals[0], position_sizes(call))
    keeps = getattr(call.operation, "keepdims", False) and signals[0].axes
    return broadcast(pooled, signals[0].axes) if keeps else pooled


def _mean_over_all_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    if signals[0].axes != len(position_sizes(call)) or not signals[0].axes:
        return [gradient]
    return [spread(at_one_position(gradient), position_sizes(call))]


def _largest(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    pooled = max_pooled(signals[0], _windows(call))
    is_global = isinstance(call.operation, GLOBAL) or operation_name(call.operation) == "Max"
    if not is_global or not signals[0].axes:
        return pooled
    single = at_one_position(pooled)
    return broadcast(single, signals[0].axes) if getattr(call.operation, "keepdims", False) else single


def _largest_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    (signal,) = signals
    back = gradient
    if back.axes < signal.axes:  # of a global pooling without axes
        back = replace(broadcast(gradient.bare(), signal.axes), activation=gradient.activation)
    return [max_pooled_gradient(back, signal, _windows(call))]


def _pyramid(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    (signal,) = signals
    if signal.axes != 2:
        return signal
    levels = call.operation.levels
    pooled = [at_one_position(max_pooled(signal, _pyramid_windows(call, level))) for level in levels]
    bins = sum(level**2 for level in levels)
    joined = concatenated(pooled, [level**2 / bins for level in levels]).mixed()
    return replace(joined, activation=signal.activation)


def _pyramid_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    (signal,) = signals
    if signal.axes != 2:
        return [gradient]
    apart = _expanded(gradient, signal)
    parts = [max_pooled_gradient(apart, signal, _pyramid_windows(call, level)) for level in call.operation.levels]
    return [added(parts)]


def _pyramid_windows(call: Call, level: int) -> list[Window]:
    return [
        Window(size, *((1, 1) if size is None else window_and_stride(size, level))) for size in position_sizes(call)
    ]


def _expanded(gradient: Signal, signal: Signal) -> Signal:
    """A gradient of flattened positions: independent from position to position."""
    near = np.zeros((len(gradient.shares), *signal.near.shape[1:]))
    near.reshape(len(near), -1)[:, 0] = gradient.squares
    return replace(gradient.bare(), near=near)


def _reshaped(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    (signal,) = signals
    before, after = max(len(call.input_shapes[0]) - 2, 0), max(len(call.output_shape) - 2, 0)
    if signal.axes != before or before == after:
        return signal
    if after > before:
        return broadcast(signal, after)
    source = signal.source
    for _ in range(before - after):  # positions become channels
        signal = replace(signal, near=signal.near[:, 0], source=None)
        source = source and replace(source, near=source.near[:, 0])
    return replace(signal, source=source)


def _reshaped_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    (signal,) = signals
    if gradient.axes == signal.axes or signal.axes != max(len(call.input_shapes[0]) - 2, 0):
        return [gradient]
    if gradient.axes > signal.axes:
        near = gradient.near
        for _ in range(gradient.axes - signal.axes):
            near = near[:, 0]
        return [replace(gradient.bare(), near=near)]
    near = np.zeros((len(gradient.shares), *signal.near.shape[1:]))
    dropped: Any = (slice(None), *[0] * (signal.axes - gradient.axes))
    near[dropped] = gradient.near
    return [replace(gradient.bare(), near=near, activation=gradient.activation)]


def _resizings(call: Call, backward: bool = False) -> list[Any]:
    operation, sizes = call.operation, position_sizes(call)
    if hasattr(operation, "padding"):
        pairs, sign = [_each(pair, 2) for pair in _each(operation.padding, len(sizes))], 1
        pairs = [operation.padding] if len(sizes) == 1 else pairs
    elif hasattr(operation, "cropping"):
        pairs, sign = [_each(pair, 2) for pair in _each(operation.cropping, len(sizes))], -1
        pairs = [operation.cropping] if len(sizes) == 1 else pairs
    else:
        repeats = _each(operation.size, len(sizes))
        return [resized(size, 0, 0, number, backward) for size, number in zip(sizes, repeats, strict=True)]
    return [
        resized(size, sign * before, sign * after, 1, backward)
        for size, (before, after) in zip(sizes, pairs, strict=True)
    ]


def _resized(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    return signals[0].moved(_resizings(call))


def _resized_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    return [gradient.moved(_resizings(call, backward=True))]


_MEAN = Rule(_averaged, _averaged_gradient)
_MEAN_OVER_ALL = Rule(_mean_over_all, _mean_over_all_gradient)
_MAX = Rule(_largest, _largest_gradient)
_RESHAPE = Rule(_reshaped, _reshaped_gradient)
_RESIZE = Rule(_resized, _resized_gradient)

LAYERS: dict[type, Rule] = {
    **dict.fromkeys((layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D), _MEAN),
    **dict.fromkeys(
        (layers.AdaptiveAveragePooling1D, layers.AdaptiveAveragePooling2D, layers.AdaptiveAveragePooling3D), _MEAN
    ),
    **dict.fromkeys(GLOBAL_MEAN, _MEAN_OVER_ALL),
    **dict.fromkeys((layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D), _MAX),
    **dict.fromkeys((layers.AdaptiveMaxPooling1D, layers.AdaptiveMaxPooling2D, layers.AdaptiveMaxPooling3D), _MAX),
    **dict.fromkeys(GLOBAL_MAX, _MAX),
    SpatialPyramidPooling2D: Rule(_pyramid, _pyramid_gradient),
    **dict.fromkeys((layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector), _RESHAPE),
    **dict.fromkeys((layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D), _RESIZE),
    **dict.fromkeys((layers.Cropping1D, layers.Cropping2D, layers.Cropping3D), _RESIZE),
    **dict.fromkeys((layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D), _RESIZE),
}

OPERATIONS: dict[str, Rule] = {
    "Mean": _MEAN_OVER_ALL,
    "Max": _MAX,
    "AveragePool": _MEAN,
    "MaxPool": _MAX,
    **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "ExpandDims"), _RESHAPE),
}
