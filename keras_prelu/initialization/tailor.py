"""Slopes for which a network keeps images apart, at any depth."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prelu.initialization.places import walk_at_one_position
from keras_prelu.layer.prelu import PReLU
from keras_prelu.walk.graph import flatten_layers, trace
from keras_prelu.walk.residuals import residual_scales


@dataclass(frozen=True)
class Tailoring:
    """The slope that all rectifiers got.

    Attributes:
        slope: The slope for negative inputs.
        likeness: C(0) of the network with it: how alike it makes two images that have nothing in common.
    """

    slope: float
    likeness: float

    def __str__(self) -> str:
        return f"slopes set to {self.slope:.4g}: C(0) = {self.likeness:.4g}"


def tailor_slopes(model: keras.Model, likeness: float) -> Tailoring:
    """Gives all rectifiers with a slope the one for which the network has this C(0).

    Kernels that keep the second moment of a signal let the covariance of two images through, and a rectifier of slope a
    maps their correlation c to

    $$C(c) = \\frac{(1 - a)^2 (\\sqrt{1 - c^2} + (\\pi - \\arccos c) c) / \\pi + 2 a c}{1 + a^2},$$

    so that after enough ReLUs all images look the same. C(0) of the network falls as a rises, to 0 in a linear network.
    It is that at one position, as in `initialize`: pooling is left out.

    Args:
        model: A built functional or Sequential model.
        likeness: C(0) to be reached, above 0 and below 1.

    Returns:
        The slope, from 0 to 1. It is 0 where even that leaves C(0) below the target.

    Raises:
        ValueError: A target that is not between 0 and 1; a model without PReLU and LeakyReLU layers, whose C(0) is
            above the target at any slope, or is not known.

    Reference:
        Zhang, Botev, Martens, "Deep Learning without Shortcuts: Shaping the Kernel with Tailored Rectifiers", 2022,
        section 4, for chains; Martens et al., "Rapid training of deep neural networks without skip connections or
        normalization layers using Deep Kernel Shaping", 2021.
    """
    if not 0 < likeness < 1:
        raise ValueError(f"tailor is {likeness}, but must be above 0 and below 1.")
    with_slopes = PReLU | layers.PReLU | layers.LeakyReLU
    rectifiers = [layer for layer in flatten_layers(model) if isinstance(layer, with_slopes)]
    if not rectifiers:
        raise ValueError(f"Model {model.name!r} has no PReLU or LeakyReLU layer: there is no slope to tailor.")
    graph = trace(model)
    scales = residual_scales(graph)
    before = [_slope_of(layer) for layer in rectifiers]

    def at(slope: float) -> float:
        for layer in rectifiers:
            _set_slope(layer, slope)
        return walk_at_one_position(graph, scales).likeness

    try:
        slope = _solve(at, likeness)
    except ValueError as error:
        for layer, value in zip(rectifiers, before, strict=True):
            _set_slope(layer, value)
        raise ValueError(f"tailor={likeness} does not fit model {model.name!r}: {error}") from None
    return Tailoring(slope, at(slope))


def _slope_of(layer: Any) -> Any:
    return layer.negative_slope if isinstance(layer, layers.LeakyReLU) else ops.convert_to_numpy(layer.alpha)


def _set_slope(layer: Any, slope: Any) -> None:
    if isinstance(layer, layers.LeakyReLU):
        layer.negative_slope = slope
    else:
        layer.alpha.assign(np.broadcast_to(np.asarray(slope, "float32"), layer.alpha.shape))


def _solve(at: Callable[[float], float], target: float) -> float:
    """The slope from 0 to 1 at which a falling function has a value, by the Illinois method."""
    low, high = 0.0, 1.0
    above, below = at(low) - target, at(high) - target
    if not (math.isfinite(above) and math.isfinite(below)):
        raise ValueError("its C(0) is not known, because of a layer whose effect is not known.")
    if above <= 0:
        return 0.0
    if below > 0:
        raise ValueError(f"C(0) is {below + target:.3g} even with slopes of 1.")
    side = 0
    while high - low > 1e-8:
        slope = (low * below - high * above) / (below - above)  # where the secant crosses the target
        value = at(slope) - target
        if abs(value) < 1e-9:
            return slope
        if value > 0:  # an end that stays twice counts for half, so that the other one moves
            low, above, below = slope, value, below / 2 if side > 0 else below
        else:
            high, below, above = slope, value, above / 2 if side < 0 else above
        side = 1 if value > 0 else -1
    return (low + high) / 2
