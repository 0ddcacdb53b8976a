"""The effect of every layer without a kernel on a signal, forward, and on a gradient, backward.

The forward rules are exact for wide layers and independent weights, but for these approximations: the terms of a sum
and the factors of a product count as independent apart from their means, unless they are one and the same; values
behind a product or a pooling count as normally distributed, values under a max pooling as equally correlated; slices
and `keras.ops.pad` as no change. Backward, layer and group normalizations leave out the gradient through their own
statistics, a fraction 1 / n of n values.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prelu.keras_internals import operation_name
from keras_prelu.layer.functional import PReLUFunction
from keras_prelu.layer.prelu import PReLU
from keras_prelu.walk.activations import activation_of, compose, rectifier
from keras_prelu.walk.fans import LINEAR_LAYERS, fans
from keras_prelu.walk.graph import Call
from keras_prelu.walk.normalization_rules import NORMALIZE, NORMALIZING, scale_and_offset
from keras_prelu.walk.pooling import at_one_position
from keras_prelu.walk.position_rules import LAYERS as POSITION_LAYERS
from keras_prelu.walk.position_rules import OPERATIONS as POSITION_OPERATIONS
from keras_prelu.walk.positions import over_all
from keras_prelu.walk.rule import Rule, Setting, position_sizes
from keras_prelu.walk.signal import WEIGHTS, Activation, Signal, concatenated, multiplied
from keras_prelu.walk.sums import gradient_by_term, slope_squares, slopes_behind, total


def rule_of(call: Call) -> Rule | str | None:
    """The rule for a call without a kernel; None or, as text, the reason where there is none."""
    operation = call.operation
    name = operation_name(operation)
    if name in ("Mean", "Max") and not _reduces_positions(call):
        return "takes the mean or the maximum over other axes than the positions"
    if name in _OPERATIONS:
        return _OPERATIONS[name]
    for kind in type(operation).__mro__:
        if kind in _LAYERS:
            return _LAYERS[kind]
    if type(operation).__name__ in _PRIVATE_LAYERS:
        return _PRIVATE_LAYERS[type(operation).__name__]
    return _activation_rule(call)


def _reduces_positions(call: Call) -> bool:
    rank, axis = len(call.input_shapes[0]), call.operation.axis
    axes = {each % rank for each in ([axis] if isinstance(axis, int) else axis or range(rank))}
    channels_first = keras.config.image_data_format() == "channels_first"
    return axes == set(range(2, rank) if channels_first else range(1, rank - 1))


def keeps_its_weights(layer: Any) -> bool:
    """Whether a layer has no kernels, only slopes, scales and offsets, whose initial values stay."""
    known = isinstance(layer, (*NORMALIZING, layers.PReLU, PReLU))
    return known or type(layer).__name__ in _PRIVATE_LAYERS


def has_kernel(call: Call) -> bool:
    """Whether a call is of a layer whose kernels decide the second moment of its outputs."""
    return isinstance(call.operation, LINEAR_LAYERS) and bool(fans(call.operation))


def sums(call: Call) -> bool:
    """Whether a call adds up several inputs, or subtracts them."""
    by_name = operation_name(call.operation) in ("Add", "Subtract") and len(call.inputs) > 1
    return isinstance(call.operation, layers.Add | layers.Subtract) or by_name


def normalizes(call: Call) -> bool:
    """Whether a call gives unit variance whatever it is given."""
    return isinstance(call.operation, NORMALIZING)


def is_preprocessing(call: Call) -> bool:
    """Whether a call does what is done to images before the first layer: scales and shifts them, or a user's code."""
    affine = isinstance(call.operation, layers.Rescaling | layers.Normalization | layers.Lambda)
    return affine or (operation_name(call.operation) in _AFFINE and len(call.inputs) == 1)


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
    near, others = slopes_behind(activation, signal) or activation.derivative(signal.bare())
    if behind.axes != signal.axes:
        near = near.reshape(len(near), -1)[:, 0].reshape(-1, *[1] * behind.axes)
    near, others = near * behind.near, others * behind.others
    squares, by_value = slope_squares(activation, signal), behind.by_value
    if squares is not None:
        together = squares if by_value is None else squares * by_value
        ratio = float(WEIGHTS @ together) / max(float(WEIGHTS @ squares), sys.float_info.min)
        near, others = ratio * near, ratio * others
        by_value = together / max(float(WEIGHTS @ together), sys.float_info.min)
    mean = np.zeros_like(behind.mean)
    return Signal(behind.shares, mean, near, others, activation, behind, behind.profile, by_value)


def _activation_rule(call: Call) -> Rule | str | None:
    activation: Activation | str | None
    if isinstance(call.operation, PReLUFunction):
        if not call.constants:
            return None
        activation = rectifier(call.constants[0])
    else:
        of_one_tensor = len(call.inputs) == len(call.outputs) == 1 and not getattr(call.operation, "weights", None)
        if not of_one_tensor and not isinstance(call.operation, PReLU | layers.PReLU):
            return None
        activation = activation_of(call.operation)
    if isinstance(activation, str):
        return activation
    return Rule(
        lambda _, signals, __: applied(activation, signals[0]),
        lambda _, gradient, signals, __: [differentiated(activation, gradient, signals[0])],
    )


# Sums, products, constants


def _sum(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    if len(signals) == 1:
        return _affine(call, signals, setting)
    terms, factors = _terms(call, signals)
    result = total(list(terms.values()), factors)
    if isinstance(call.operation, layers.Average):
        return result.affine(1 / len(signals), 0.0, 1 / len(signals) ** 2, 0.0)
    return result


def _terms(call: Call, signals: Sequence[Signal]) -> tuple[dict[int, Signal], list[float]]:
    """The terms of a sum by tensor, and the factor of each: one and the same term twice is twice that term."""
    subtracts = isinstance(call.operation, layers.Subtract) or operation_name(call.operation) == "Subtract"
    signs = [1.0] + [-1.0 if subtracts else 1.0] * (len(signals) - 1)
    factors: dict[int, float] = defaultdict(float)
    for tensor, sign in zip(call.inputs, signs, strict=True):
        factors[tensor] += sign
    return dict(zip(call.inputs, signals, strict=True)), list(factors.values())


def _sum_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    if len(signals) == 1:
        return _affine_gradient(call, gradient, signals, setting)
    share = 1 / len(signals) ** 2 if isinstance(call.operation, layers.Average) else 1.0
    back = gradient if share == 1 else gradient.times(share)
    terms, factors = _terms(call, signals)
    by_term = {
        tensor: gradient_by_term(gradient.by_value, list(terms.values()), factors, place)
        for place, tensor in enumerate(terms)
    }
    gradients = []
    for place, tensor in enumerate(call.inputs):
        number = call.inputs.count(tensor)  # the gradients of equal terms are equal, and add up as such
        repeated = back if number == 1 else back.times(number)
        gradients.append(_narrowed(call, replace(repeated, by_value=by_term[tensor]), place))
    return gradients


_AFFINE = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative")


def _constants(call: Call) -> tuple[float, float, float, float]:
    """The scale and the offset that a call with one input applies: their means and their mean squares."""
    operation = call.operation
    if isinstance(operation, layers.Rescaling):
        scale, offset = np.asarray(operation.scale, "float64"), np.asarray(operation.offset, "float64")
    else:
        constant = np.asarray(ops.convert_to_numpy(call.constants[0]), "float64") if call.constants else np.ones(())
        scale, offset = np.ones(()), np.zeros(())
        if operation_name(call.operation) == "Add":
            offset = constant
        elif operation_name(call.operation) == "Subtract":
            scale, offset = (-np.ones(()), constant) if call.constant_first else (np.ones(()), -constant)
        elif operation_name(call.operation) == "Multiply":
            scale = constant
        elif operation_name(call.operation) == "Negative":
            scale = -np.ones(())
        else:
            scale = 1 / constant
    return float(scale.mean()), float(offset.mean()), float(np.square(scale).mean()), float(np.square(offset).mean())


def _affine(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    scale, offset, scale_square, offset_square = _constants(call)
    result = signals[0].affine(scale, offset, scale_square, offset_square)
    return result if offset_square else replace(result, activation=signals[0].activation)


def _affine_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    return [replace(gradient.times(_constants(call)[2]), activation=gradient.activation)]


def _product(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    return _affine(call, signals, setting) if len(signals) == 1 else multiplied(signals)


def _product_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    if len(signals) == 1:
        return _affine_gradient(call, gradient, signals, setting)
    gradients = []
    for place in range(len(signals)):
        factors = [signal.bare() for index, signal in enumerate(signals) if index != place]
        gradients.append(_narrowed(call, multiplied([gradient.bare(), *factors]), place))
    return gradients


def _narrowed(call: Call, gradient: Signal, place: int) -> Signal:
    """The gradient of an input that was repeated along axes of size 1: it is summed over them."""
    sizes, own = _largest_sizes(call), position_sizes(call, place)
    if gradient.axes != len(sizes) or len(own) > len(sizes):
        return gradient
    own = (1,) * (len(sizes) - len(own)) + tuple(own)
    near = gradient.near
    for axis, (size, mine) in enumerate(zip(sizes, own, strict=True), start=1):
        if mine == 1 and size != 1:
            pairs = over_all(size).on_flat.near * (size or 1) ** 2
            near = np.moveaxis(np.tensordot(pairs, near, (1, axis)), 0, axis)
    narrowed = gradient if near is gradient.near else replace(gradient.bare(), near=near)
    return at_one_position(narrowed) if not position_sizes(call, place) else narrowed


def _largest_sizes(call: Call) -> tuple[int | None, ...]:
    shapes = [position_sizes(call, place) for place in range(len(call.input_shapes))]
    longest = max(shapes, key=len)
    return tuple(
        max((shape[axis - len(longest)] or 0 for shape in shapes if len(shape) + axis >= len(longest)), default=0)
        or None
        for axis in range(len(longest))
    )


def _joined(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    return concatenated(signals, _shares(call))


def _joined_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
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


# Chance


def _dropped(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    return _with_chance(call, signals[0]) if setting.training else signals[0]


def _dropped_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    return [_with_chance(call, gradient) if setting.training else gradient]


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


def _noisy(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    if not setting.training:
        return signals[0]
    near = signals[0].near.copy()
    near.reshape(len(near), -1)[:, 0] += float(call.operation.stddev) ** 2
    return replace(signals[0].bare(), near=near)


def _layer_scaled(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    scale, square, _, _ = scale_and_offset(call.operation)
    return signals[0].affine(scale, 0.0, square, 0.0)


def _layer_scaled_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    return [gradient.times(scale_and_offset(call.operation)[1])]


def _branch_scaled(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    return total(signals, [1.0, branch_scale(call)])


def branch_scale(call: Call) -> float:
    """The factor with which a residual sum of InceptionResNet takes its branch; 1 for every other call."""
    return float(call.operation.scale) if type(call.operation).__name__ == "CustomScaleLayer" else 1.0


def _branch_scaled_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    factors = [1.0, branch_scale(call)]
    return [
        replace(gradient.times(factor**2), by_value=gradient_by_term(gradient.by_value, signals, factors, place))
        for place, factor in enumerate(factors)
    ]


def _kept(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    return signals[0]


def _kept_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    return [gradient]


_SPATIAL_DROPOUT = (layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D)

_KEEP = Rule(_kept, _kept_gradient)
_SUM = Rule(_sum, _sum_gradient)
_PRODUCT = Rule(_product, _product_gradient)
_AFFINE_RULE = Rule(_affine, _affine_gradient)
_JOIN = Rule(_joined, _joined_gradient)
_DROP = Rule(_dropped, _dropped_gradient)

_LAYERS: dict[type, Rule] = {
    **dict.fromkeys((layers.Add, layers.Subtract, layers.Average), _SUM),
    layers.Multiply: _PRODUCT,
    layers.Concatenate: _JOIN,
    layers.Rescaling: _AFFINE_RULE,
    **dict.fromkeys(NORMALIZING, NORMALIZE),
    **POSITION_LAYERS,
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
    **POSITION_OPERATIONS,
    **dict.fromkeys(("Flip", "Cast", "GetItem", "Split", "Pad"), _KEEP),
}

# Layers of keras.applications that have no public names.
_PRIVATE_LAYERS: dict[str, Rule] = {
    "LayerScale": Rule(_layer_scaled, _layer_scaled_gradient),
    "StochasticDepth": _DROP,
    "CustomScaleLayer": Rule(_branch_scaled, _branch_scaled_gradient),
}
