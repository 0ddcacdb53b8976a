"""The effect of normalizations on a signal and on a gradient."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers, ops

from keras_prelu.walk.activations import leaning
from keras_prelu.walk.graph import Call
from keras_prelu.walk.pooling import without_axes
from keras_prelu.walk.positions import flattened
from keras_prelu.walk.rule import Rule, Setting, position_sizes
from keras_prelu.walk.signal import Array, Signal

NORMALIZING = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.Normalization,
)


def _normalized(call: Call, signals: Sequence[Signal], setting: Setting) -> Signal:
    (signal,) = signals
    centre_near, centre_others, variance = _normalizer(call, signal, setting)
    scale, scale_square, offset, offset_square = scale_and_offset(call.operation)
    mean = 0.0 if centre_near is not None else signal.mean / np.sqrt(variance)
    near = (signal.near - (0.0 if centre_near is None else signal.column(centre_near))) / signal.column(variance)
    others = (signal.others - (0.0 if centre_others is None else centre_others)) / variance
    mean, profile = np.broadcast_to(mean, signal.shares.shape), _centred_profile(call, signal)
    unit = Signal(signal.shares, mean, near, others, profile=profile)
    return unit if (scale, offset_square) == (1.0, 0.0) else unit.affine(scale, offset, scale_square, offset_square)


def _centred_profile(call: Call, signal: Signal) -> tuple[Array | None, ...]:
    """The profile without the mean of each channel; a normalization of every position by itself makes it even."""
    if not isinstance(call.operation, layers.BatchNormalization):
        return signal.profile if isinstance(call.operation, layers.Normalization | layers.GroupNormalization) else ()
    square, shared = signal.second_moment, float(signal.shares @ signal.others)
    profile: list[Array | None] = []
    for each in signal.profile:
        if each is None:
            profile.append(None)
            continue
        root = np.sqrt(each) / np.sqrt(each).mean()
        profile.append(flattened(square * each + shared * (1 - 2 * root)))
    return tuple(profile)


def _normalized_gradient(call: Call, gradient: Signal, signals: Sequence[Signal], setting: Setting) -> list[Signal]:
    _, _, variance = _normalizer(call, signals[0], setting)
    scale_square = scale_and_offset(call.operation)[1]
    unevenness = signals[0].unevenness if isinstance(call.operation, layers.BatchNormalization) else 1.0
    back = gradient.bare().grouped_as(signals[0]).times(unevenness * scale_square / variance)
    if isinstance(call.operation, layers.BatchNormalization) and math.isfinite(setting.images):
        back = _without_own_statistics(call, back, gradient, setting)
    return [replace(back, activation=gradient.activation, unevenness=unevenness)]


def _without_own_statistics(call: Call, back: Signal, gradient: Signal, setting: Setting) -> Signal:
    """A gradient without its mean over a batch and its part along the normalized signal, for each channel.

    Both are 0 over many images. Over n, the square of the mean is the mean covariance of all n^2 pairs of images; the
    other part is as large times (E[x f'] / E[f'])^2, with f the function behind the normalization.
    """
    within = without_axes(back.bare(), position_sizes(call)).squares
    mean = np.maximum(within / setting.images + (1 - 1 / setting.images) * back.others, 0.0)
    along = 0.0 if gradient.source is None or gradient.activation is None else leaning(gradient.activation) ** 2
    removed = np.minimum(mean * (1 + along), 0.9 * back.squares)
    return replace(back, near=back.near - back.column(removed), others=back.others - removed)


def _normalizer(call: Call, signal: Signal, setting: Setting) -> tuple[Array | None, Array | None, Array]:
    """The part of the covariances that centring removes, within an image and between images, and the variance."""
    operation = call.operation
    epsilon = operation.epsilon if setting.training and hasattr(operation, "epsilon") else sys.float_info.min
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
    over_positions = without_axes(signal.bare(), position_sizes(call)).squares
    squares = signal.mean**2
    return squares + (over_positions - squares) / per_group, squares + (signal.others - squares) / per_group


def _adapted_variance(operation: Any) -> float:
    variance = getattr(operation, "variance", None)
    return 1.0 if variance is None else float(np.mean(ops.convert_to_numpy(variance)))


def scale_and_offset(operation: Any) -> tuple[float, float, float, float]:
    """The learnt scale and offset: mean and mean square of each."""
    values = []
    for name, default in (("gamma", 1.0), ("beta", 0.0)):
        weight = getattr(operation, name, None)
        if name == "gamma" and weight is None:
            weight = getattr(operation, "scale", None)  # of RMSNormalization
        array = np.asarray(default if weight is None or isinstance(weight, bool) else ops.convert_to_numpy(weight))
        values += [float(np.mean(array, dtype="float64")), float(np.mean(np.square(array, dtype="float64")))]
    return values[0], values[1], values[2], values[3]


NORMALIZE = Rule(_normalized, _normalized_gradient)
