"""The effect of every layer without a kernel on a signal, forward, and on a gradient, backward.

The forward rules are exact for wide layers and independent weights, but for these approximations: the terms of a sum
and the factors of a product count as independent apart from their means, unless they are one and the same; values
behind a sum or a pooling count as normally distributed; values under a max pooling as equally correlated. The backward
rules leave out the gradient that a normalization sends through its own statistics, a fraction 1 / n of n values.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prelu.initialization.activations import Activation, activation_of, compose, rectifier
from keras_prelu.initialization.fans import LINEAR_LAYERS, fans
from keras_prelu.initialization.graph import Call
from keras_prelu.initialization.pooling_rules import (
    Window,
    at_one_position,
    max_pooled,
    max_pooled_gradient,
    spread,
    without_axes,
)
from keras_prelu.initialization.positions import over_all, resized
from keras_prelu.initialization.signal import Array, Signal, added, broadcast, concatenated, multiplied
from keras_prelu.layer.functional import PReLUFunction
from keras_prelu.layer.pooling import SpatialPyramidPooling2D, window_and_stride
from keras_prelu.layer.prelu import PReLU

NORMALIZING = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.Normalization,
)


@dataclass(frozen=True)
class Rule:
    """The effect of one kind of call.

    Attributes:
        forward: From the call, the signals at its inputs and `training`, to the signal at its output.
        backward: From the call, the gradient at its output, the signals at its inputs and `training`, to the gradient
            at each input.

    With `training`, dropout drops and normalizations add their epsilon, as in a running model.
    """

    forward: Callable[[Call, Sequence[Signal], bool], Signal]
    backward: Callable[[Call, Signal, Sequence[Signal], bool], list[Signal]]


def rule_of(call: Call) -> Rule | str | None:
    """The rule for a call without a kernel; None or, as text, the reason where there is none."""
    operation = call.operation
    if not isinstance(operation, keras.Layer) and _name(call) in _OPERATIONS:
        return _OPERATIONS[_name(call)]
    for kind in type(operation).__mro__:
        if kind in _LAYERS:
            return _LAYERS[kind]
    if type(operation).__name__ in _PRIVATE_LAYERS:
        return _PRIVATE_LAYERS[type(operation).__name__]
    return _activation_rule(call)


def keeps_its_weights(layer: Any) -> bool:
    """Whether a layer's weights are no kernels and start as they are meant to: slopes, scales and offsets."""
    known = isinstance(layer, (*NORMALIZING, layers.PReLU, PReLU))
    return known or type(layer).__name__ in _PRIVATE_LAYERS


def has_kernel(call: Call) -> bool:
    """Whether a call is of a layer whose kernels decide the second moment of its outputs."""
    return isinstance(call.operation, LINEAR_LAYERS) and bool(fans(call.operation))


def sums(call: Call) -> bool:
    """Whether a call adds up several inputs, or subtracts them."""
    by_name = _name(call) in ("Add", "Subtract") and len(call.inputs) > 1
    return isinstance(call.operation, layers.Add | layers.Subtract) or by_name


def normalizes(call: Call) -> bool:
    """Whether a call gives unit variance whatever it is given."""
    return isinstance(call.operation, NORMALIZING)


def is_preprocessing(call: Call) -> bool:
    """Whether a call does what is done to images before the first layer: scales and shifts them, or a user's code."""
    affine = isinstance(call.operation, layers.Rescaling | layers.Normalization | layers.Lambda)
    return affine or (_name(call) in _AFFINE and len(call.inputs) == 1)


def _name(call: Call) -> str:
    """The class of an operation of `keras.ops`, which has no public name."""
    return "" if isinstance(call.operation, keras.Layer) else type(call.operation).__name__


# Elementwise functions


def applied(activation: Activation | None, signal: Signal) -> Signal:
    """A signal behind an elementwise function; behind two in a row, it is that of one function of the first's input."""
    if activation is None:
        return signal
    if signal.source is None:
        return activation.forward(signal.bare())
    return compose(activation, signal.activation).forward(signal.source)


def differentiated(activation: Activation | None, gradient: Signal, signal: Signal) -> Signal:
    """A gradient before an elementwise function, from the one behind it and the signal before it."""
    if activation is None:
        return gradient
    behind = gradient
    if gradient.source is not None:  # another function follows at once: their derivative is that of both together
        activation, behind = (
            compose(gradient.activation, activation) if gradient.activation else activation,
            gradient.source,
        )
    behind = behind.grouped_as(signal)
    near, others = activation.derivative(signal.bare())
    if behind.axes != signal.axes:
        near = near.reshape(len(near), -1)[:, 0].reshape(-1, *[1] * behind.axes)
    return Signal(
        behind.shares, np.zeros_like(behind.mean), near * behind.near, others * behind.others, activation, behind
    )


def _activation_rule(call: Call) -> Rule | str | None:
    activation: Activation | str | None
    if isinstance(call.operation, PReLUFunction):
        if not call.constants:
            return None
        activation = rectifier(call.constants[0])
    elif len(call.inputs) != 1 or len(call.outputs) != 1 or getattr(call.operation, "weights", None):
        if not isinstance(call.operation, PReLU | layers.PReLU):
            return None
        activation = activation_of(call.operation)
    else:
        activation = activation_of(call.operation)
    if isinstance(activation, str):
        return activation
    return Rule(
        lambda _, signals, __: applied(activation, signals[0]),
        lambda _, gradient, signals, __: [differentiated(activation, gradient, signals[0])],
    )


# Sums, products, constants


def _sum(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    if len(signals) == 1:
        return _affine(call, signals, training)
    subtracts = isinstance(call.operation, layers.Subtract) or _name(call) == "Subtract"
    signs = [1.0] + [-1.0 if subtracts else 1.0] * (len(signals) - 1)
    factors, terms = [], []
    for tensor in dict.fromkeys(call.inputs):  # one and the same term twice is twice that term
        places = [place for place, each in enumerate(call.inputs) if each == tensor]
        factors.append(sum(signs[place] for place in places))
        terms.append(signals[places[0]])
    total = added(terms, factors)
    if isinstance(call.operation, layers.Average):
        return total.affine(1 / len(signals), 0.0, 1 / len(signals) ** 2, 0.0)
    return total


def _sum_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    if len(signals) == 1:
        return _affine_gradient(call, gradient, signals, training)
    share = 1 / len(signals) ** 2 if isinstance(call.operation, layers.Average) else 1.0
    back = gradient if share == 1 else gradient.times(share)
    # The gradients of equal terms are equal, and add up as such.
    return [
        _narrowed(call, back if call.inputs.count(tensor) == 1 else back.times(call.inputs.count(tensor)), place)
        for place, tensor in enumerate(call.inputs)
    ]


_AFFINE = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative")


def _constants(call: Call) -> tuple[float, float, float, float]:
    """The scale and the offset that a call with one input applies: their means and their mean squares."""
    operation = call.operation
    if isinstance(operation, layers.Rescaling):
        scale, offset = np.asarray(operation.scale, "float64"), np.asarray(operation.offset, "float64")
    else:
        constant = np.asarray(ops.convert_to_numpy(call.constants[0]), "float64") if call.constants else np.ones(())
        scale, offset = np.ones(()), np.zeros(())
        if _name(call) == "Add":
            offset = constant
        elif _name(call) == "Subtract":
            scale, offset = (-np.ones(()), constant) if call.constant_first else (np.ones(()), -constant)
        elif _name(call) == "Multiply":
            scale = constant
        elif _name(call) == "Negative":
            scale = -np.ones(())
        else:
            scale = 1 / constant
    return float(scale.mean()), float(offset.mean()), float(np.square(scale).mean()), float(np.square(offset).mean())


def _affine(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    scale, offset, scale_square, offset_square = _constants(call)
    result = signals[0].affine(scale, offset, scale_square, offset_square)
    return result if offset_square else replace(result, activation=signals[0].activation)


def _affine_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    return [replace(gradient.times(_constants(call)[2]), activation=gradient.activation)]


def _product(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    return _affine(call, signals, training) if len(signals) == 1 else multiplied(signals)


def _product_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    if len(signals) == 1:
        return _affine_gradient(call, gradient, signals, training)
    gradients = []
    for place in range(len(signals)):
        factors = [signal.bare() for index, signal in enumerate(signals) if index != place]
        gradients.append(_narrowed(call, multiplied([gradient.bare(), *factors]), place))
    return gradients


def _narrowed(call: Call, gradient: Signal, place: int) -> Signal:
    """The gradient of an input that was repeated along axes of size 1: it is summed over them."""
    sizes, own = _largest_sizes(call), _sizes(call, place)
    if gradient.axes != len(sizes) or len(own) > len(sizes):
        return gradient
    own = (1,) * (len(sizes) - len(own)) + tuple(own)
    near = gradient.near
    for axis, (size, mine) in enumerate(zip(sizes, own, strict=True), start=1):
        if mine == 1 and size != 1:
            pairs = over_all(size).near * (size or 1) ** 2
            near = np.moveaxis(np.tensordot(pairs, near, (1, axis)), 0, axis)
    narrowed = gradient if near is gradient.near else replace(gradient.bare(), near=near)
    return at_one_position(narrowed) if not _sizes(call, place) else narrowed


def _largest_sizes(call: Call) -> tuple[int | None, ...]:
    shapes = [_sizes(call, place) for place in range(len(call.input_shapes))]
    longest = max(shapes, key=len)
    return tuple(
        max((shape[axis - len(longest)] or 0 for shape in shapes if len(shape) + axis >= len(longest)), default=0)
        or None
        for axis in range(len(longest))
    )


def _joined(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    return concatenated(signals, _shares(call))


def _joined_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    groups = [len(signal.shares) for signal in signals]
    if len(gradient.shares) != sum(groups):
        return [gradient.mixed()] * len(signals)
    ends = np.cumsum(groups)
    return [_groups(gradient, slice(end - number, end)) for end, number in zip(ends, groups, strict=True)]


def _groups(signal: Signal, part: slice) -> Signal:
    shares = signal.shares[part] / signal.shares[part].sum()
    source = signal.source and _groups(signal.source, part)
    return replace(
        signal, shares=shares, mean=signal.mean[part], near=signal.near[part], others=signal.others[part], source=source
    )


def _shares(call: Call) -> list[float]:
    """The part of a concatenation that each input is; equal parts where a size is unknown."""
    sizes = [shape[call.operation.axis] for shape in call.input_shapes]
    known = [size for size in sizes if size is not None]
    return [size / sum(known) for size in known] if len(known) == len(sizes) else [1 / len(sizes)] * len(sizes)


# Normalizations


def _normalized(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    (signal,) = signals
    centre_near, centre_others, variance = _normalizer(call, signal, training)
    scale, scale_square, offset, offset_square = _scale_and_offset(call.operation)
    mean = 0.0 if centre_near is not None else signal.mean / np.sqrt(variance)
    near = (signal.near - (0.0 if centre_near is None else signal.column(centre_near))) / signal.column(variance)
    others = (signal.others - (0.0 if centre_others is None else centre_others)) / variance
    unit = Signal(signal.shares, np.broadcast_to(mean, signal.shares.shape), near, others)
    return unit if (scale, offset_square) == (1.0, 0.0) else unit.affine(scale, offset, scale_square, offset_square)


def _normalized_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    _, _, variance = _normalizer(call, signals[0], training)
    scale_square = _scale_and_offset(call.operation)[1]
    back = gradient.bare().grouped_as(signals[0]).times(scale_square / variance)
    return [replace(back, activation=gradient.activation)]


def _normalizer(call: Call, signal: Signal, training: bool) -> tuple[Array | None, Array | None, Array]:
    """The part of the covariances that centring removes, within an image and between images, and the variance."""
    operation = call.operation
    epsilon = operation.epsilon if training and hasattr(operation, "epsilon") else sys.float_info.min
    if isinstance(operation, layers.Normalization):
        return None, None, np.maximum(np.asarray([_adapted_variance(operation)]), sys.float_info.min)
    if isinstance(operation, layers.RMSNormalization):
        return None, None, np.full_like(signal.mean, signal.second_moment + epsilon)
    if isinstance(operation, layers.BatchNormalization):  # over images and positions, each channel by itself
        return signal.others, signal.others, np.maximum(signal.squares - signal.others, 0) + epsilon
    centre = float(signal.shares @ signal.mean) ** 2
    centres = np.full_like(signal.mean, centre), np.full_like(signal.mean, centre)
    if isinstance(operation, layers.GroupNormalization):
        centres = _group_centres(call, signal)
    variance = signal.shares @ (signal.squares - centres[0]) if len(signal.shares) > 1 else signal.squares - centres[0]
    return *centres, np.broadcast_to(np.maximum(variance, 0) + epsilon, signal.mean.shape)


def _group_centres(call: Call, signal: Signal) -> tuple[Array, Array]:
    """The square of the mean over a group of channels and all positions, and its product between two images."""
    axis, groups = call.operation.axis, call.operation.groups
    channels = call.input_shapes[0][axis] or sys.maxsize
    per_group = channels / (channels if groups == -1 else groups)
    over_positions = without_axes(signal.bare(), _sizes(call)).squares
    squares = signal.mean**2
    return squares + (over_positions - squares) / per_group, squares + (signal.others - squares) / per_group


def _adapted_variance(operation: Any) -> float:
    variance = getattr(operation, "variance", None)
    return 1.0 if variance is None else float(np.mean(ops.convert_to_numpy(variance)))


def _scale_and_offset(operation: Any) -> tuple[float, float, float, float]:
    """The learnt scale and offset: mean and mean square of each."""
    values = []
    for name, default in (("gamma", 1.0), ("beta", 0.0)):
        weight = getattr(operation, name, None)
        if name == "gamma" and weight is None:
            weight = getattr(operation, "scale", None)  # of RMSNormalization
        array = np.asarray(default if weight is None or isinstance(weight, bool) else ops.convert_to_numpy(weight))
        values += [float(np.mean(array, dtype="float64")), float(np.mean(np.square(array, dtype="float64")))]
    return values[0], values[1], values[2], values[3]


# Positions


def _sizes(call: Call, place: int = 0) -> tuple[int | None, ...]:
    """The position axes of an input."""
    shape = call.input_shapes[place]
    data_format = getattr(call.operation, "data_format", None) or keras.config.image_data_format()
    return tuple(shape[2:] if data_format == "channels_first" else shape[1:-1])


def _each(value: Any, number: int) -> tuple[Any, ...]:
    return (value,) * number if isinstance(value, int) else tuple(value)


def _windows(call: Call) -> list[Window]:
    operation, sizes = call.operation, _sizes(call)
    if isinstance(operation, _GLOBAL) or _name(call) in ("Mean", "Max"):
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


def _averaged(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    return signals[0].moved([window.mean() for window in _windows(call)])


def _averaged_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    return [gradient.moved([window.mean(backward=True) for window in _windows(call)])]


def _averaged_over_all(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    pooled = without_axes(signals[0], _sizes(call))
    keeps = getattr(call.operation, "keepdims", False) and signals[0].axes
    return broadcast(pooled, signals[0].axes) if keeps else pooled


def _averaged_over_all_gradient(
    call: Call, gradient: Signal, signals: Sequence[Signal], training: bool
) -> list[Signal]:
    if signals[0].axes != len(_sizes(call)) or not signals[0].axes:
        return [gradient]
    return [spread(at_one_position(gradient), _sizes(call))]


def _largest(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    pooled = max_pooled(signals[0], _windows(call))
    is_global = isinstance(call.operation, _GLOBAL) or _name(call) == "Max"
    if not is_global or not signals[0].axes:
        return pooled
    single = at_one_position(pooled)
    return broadcast(single, signals[0].axes) if getattr(call.operation, "keepdims", False) else single


def _largest_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    (signal,) = signals
    back = gradient
    if back.axes < signal.axes:  # of a global pooling without axes
        back = replace(broadcast(gradient.bare(), signal.axes), activation=gradient.activation)
    return [max_pooled_gradient(back, signal, _windows(call))]


def _pyramid(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    (signal,) = signals
    if signal.axes != 2:
        return signal
    levels = call.operation.levels
    pooled = [at_one_position(max_pooled(signal, _pyramid_windows(call, level))) for level in levels]
    bins = sum(level**2 for level in levels)
    joined = concatenated(pooled, [level**2 / bins for level in levels]).mixed()
    return replace(joined, activation=signal.activation)


def _pyramid_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    (signal,) = signals
    if signal.axes != 2:
        return [gradient]
    apart = _expanded(gradient, signal)
    parts = [max_pooled_gradient(apart, signal, _pyramid_windows(call, level)) for level in call.operation.levels]
    return [added(parts)]


def _pyramid_windows(call: Call, level: int) -> list[Window]:
    return [Window(size, *((1, 1) if size is None else window_and_stride(size, level))) for size in _sizes(call)]


def _expanded(gradient: Signal, signal: Signal) -> Signal:
    """A gradient of flattened positions: independent from position to position."""
    near = np.zeros((len(gradient.shares), *signal.near.shape[1:]))
    near.reshape(len(near), -1)[:, 0] = gradient.squares
    return replace(gradient.bare(), near=near)


def _reshaped(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
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


def _reshaped_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
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
    operation, sizes = call.operation, _sizes(call)
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


def _resized(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    return signals[0].moved(_resizings(call))


def _resized_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    return [gradient.moved(_resizings(call, backward=True))]


# Chance


def _dropped(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    return _with_chance(call, signals[0]) if training else signals[0]


def _dropped_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    return [_with_chance(call, gradient) if training else gradient]


def _with_chance(call: Call, signal: Signal) -> Signal:
    """What is kept grows by 1 / (1 - rate): the mean stays, the second moment grows by as much."""
    operation = call.operation
    rate = getattr(operation, "drop_path_rate", None)
    rate = float(operation.rate if rate is None else rate)
    noise_shape = getattr(operation, "noise_shape", None)
    whole = hasattr(operation, "drop_path_rate") or isinstance(operation, _SPATIAL_DROPOUT)
    whole = whole or (noise_shape is not None and all(size == 1 for size in tuple(noise_shape)[1:-1]))
    if rate == 0 or rate >= 1:
        return signal
    near = signal.near / (1 - rate)
    if not whole:  # each value by itself
        near = signal.near.copy()
        near.reshape(len(near), -1)[:, 0] /= 1 - rate
    return replace(signal, near=near, source=None)


def _noisy(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    if not training:
        return signals[0]
    near = signals[0].near.copy()
    near.reshape(len(near), -1)[:, 0] += float(call.operation.stddev) ** 2
    return replace(signals[0].bare(), near=near)


def _layer_scaled(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    scale, square, _, _ = _scale_and_offset(call.operation)
    return signals[0].affine(scale, 0.0, square, 0.0)


def _layer_scaled_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    return [gradient.times(_scale_and_offset(call.operation)[1])]


def _branch_scaled(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    return added(signals, [1.0, float(call.operation.scale)])


def _branch_scaled_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    return [gradient, gradient.times(float(call.operation.scale) ** 2)]


def _kept(call: Call, signals: Sequence[Signal], training: bool) -> Signal:
    return signals[0]


def _kept_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], training: bool) -> list[Signal]:
    return [gradient]


_SPATIAL_DROPOUT = (layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D)
_GLOBAL_MEAN = (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
_GLOBAL_MAX = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)
_GLOBAL = _GLOBAL_MEAN + _GLOBAL_MAX

_KEEP = Rule(_kept, _kept_gradient)
_SUM = Rule(_sum, _sum_gradient)
_PRODUCT = Rule(_product, _product_gradient)
_AFFINE_RULE = Rule(_affine, _affine_gradient)
_JOIN = Rule(_joined, _joined_gradient)
_NORMALIZE = Rule(_normalized, _normalized_gradient)
_MEAN = Rule(_averaged, _averaged_gradient)
_MEAN_OVER_ALL = Rule(_averaged_over_all, _averaged_over_all_gradient)
_MAX = Rule(_largest, _largest_gradient)
_RESHAPE = Rule(_reshaped, _reshaped_gradient)
_RESIZE = Rule(_resized, _resized_gradient)
_DROP = Rule(_dropped, _dropped_gradient)

_LAYERS: dict[type, Rule] = {
    **dict.fromkeys((layers.Add, layers.Subtract, layers.Average), _SUM),
    layers.Multiply: _PRODUCT,
    layers.Concatenate: _JOIN,
    layers.Rescaling: _AFFINE_RULE,
    **dict.fromkeys(NORMALIZING, _NORMALIZE),
    **dict.fromkeys((layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D), _MEAN),
    **dict.fromkeys(
        (layers.AdaptiveAveragePooling1D, layers.AdaptiveAveragePooling2D, layers.AdaptiveAveragePooling3D), _MEAN
    ),
    **dict.fromkeys(_GLOBAL_MEAN, _MEAN_OVER_ALL),
    **dict.fromkeys((layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D), _MAX),
    **dict.fromkeys((layers.AdaptiveMaxPooling1D, layers.AdaptiveMaxPooling2D, layers.AdaptiveMaxPooling3D), _MAX),
    **dict.fromkeys(_GLOBAL_MAX, _MAX),
    SpatialPyramidPooling2D: Rule(_pyramid, _pyramid_gradient),
    **dict.fromkeys((layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector), _RESHAPE),
    **dict.fromkeys((layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D), _RESIZE),
    **dict.fromkeys((layers.Cropping1D, layers.Cropping2D, layers.Cropping3D), _RESIZE),
    **dict.fromkeys((layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D), _RESIZE),
    **dict.fromkeys((layers.Dropout, layers.GaussianDropout, *_SPATIAL_DROPOUT), _DROP),
    layers.GaussianNoise: Rule(_noisy, _kept_gradient),
    **dict.fromkeys((layers.AlphaDropout, layers.ActivityRegularization, layers.Identity, layers.Masking), _KEEP),
}

# Operations of keras.ops on symbolic tensors, whose classes have no public names.
_OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(("Add", "Subtract"), _SUM),
    **dict.fromkeys(("Divide", "TrueDivide", "Negative"), _AFFINE_RULE),
    "Multiply": _PRODUCT,
    "Concatenate": _JOIN,
    "Mean": _MEAN_OVER_ALL,
    "Max": _MAX,
    "AveragePool": _MEAN,
    "MaxPool": _MAX,
    **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "ExpandDims"), _RESHAPE),
    **dict.fromkeys(("Flip", "Cast", "GetItem", "Split", "Pad"), _KEEP),
}

# Layers of keras.applications that have no public names.
_PRIVATE_LAYERS: dict[str, Rule] = {
    "LayerScale": Rule(_layer_scaled, _layer_scaled_gradient),
    "StochasticDepth": _DROP,
    "CustomScaleLayer": Rule(_branch_scaled, _branch_scaled_gradient),
}
