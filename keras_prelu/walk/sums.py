"""The distribution of a sum that is not normal: rectified signals are among its terms, as in residual networks.

A sum y is written as an increasing function of one standard normal value, y = T(z), so that whatever follows it is a
function of z like any other. T follows from the distributions of the terms, which count as independent; the
correlations of z within and between images are those that give the covariances of y.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from keras_prelu.walk.activations import Elementwise
from keras_prelu.walk.signal import POINTS, WEIGHTS, Activation, Array, Signal, added

_GRID = 1601  # values at which the density of a sum is taken
_SMOOTH = 0.01  # of the sum's standard deviation: what smooths sums in which no term is normal
_CORRELATIONS = np.linspace(-1.0, 1.0, 201)


@dataclass(frozen=True, eq=False)
class Quantiles:
    """The increasing function from a standard normal value to a value of a sum.

    Attributes:
        values: Its values at `POINTS`; straight lines extend beyond them.
    """

    values: Array

    name = "sum"
    negative_slope = 1.0  # to what follows, a sum is no rectifier

    def __call__(self, values: Array) -> Array:
        """The values of the sum at values of the normal one."""
        inside = np.interp(values, POINTS, self.values)
        step = POINTS[1] - POINTS[0]
        below, above = (self.values[1] - self.values[0]) / step, (self.values[-1] - self.values[-2]) / step
        return inside + below * np.minimum(values - POINTS[0], 0) + above * np.maximum(values - POINTS[-1], 0)

    def forward(self, signal: Signal) -> Signal:
        """As of any function."""
        return Elementwise(self.name, self).forward(signal)

    def derivative(self, signal: Signal) -> tuple[Array, Array]:
        """As of any function."""
        return Elementwise(self.name, self).derivative(signal)


def total(terms: Sequence[Signal], factors: Sequence[float]) -> Signal:
    """The sum of signals that are independent but for their means, with its distribution.

    Args:
        terms: The signals.
        factors: What each is multiplied by.
    """
    result = added(terms, factors)
    merged = [term.mixed() for term in terms]
    values = [_values(term) for term in merged]
    if all(each is None for each in values) or result.squares[0] <= result.mean[0] ** 2:
        return result
    parts = [factor * each for factor, each in zip(factors, values, strict=True) if each is not None]
    normal = [(factor, term) for factor, term, each in zip(factors, merged, values, strict=True) if each is None]
    variance = sum(factor**2 * float(term.squares[0] - term.mean[0] ** 2) for factor, term in normal)
    quantiles = _quantiles(functools.reduce(_independent_sum, parts), variance)
    quantiles *= np.sqrt((result.squares[0] - result.mean[0] ** 2) / (WEIGHTS @ quantiles**2))
    return _with_source(result, Quantiles(quantiles + result.mean[0]))


def slopes_behind(activation: Activation, signal: Signal) -> tuple[Array, Array] | None:
    """E[f'(y) f'(y')] of a function f of a sum y, in the shapes of `near` and `others`.

    Args:
        activation: The function.
        signal: The signal before it.

    Returns:
        The two; None where the signal is not such a sum.
    """
    if not isinstance(signal.activation, Quantiles) or signal.source is None:
        return None
    quantiles, step = signal.activation, 1e-4 * float(np.sqrt(signal.squares.max()))

    def slope(points: Array) -> Array:
        values = quantiles(points)
        return (activation(values + step) - activation(values - step)) / (2 * step)

    slopes = Elementwise("slope", slope).forward(signal.source)
    return slopes.near, slopes.others


def slope_squares(activation: Activation, signal: Signal) -> Array | None:
    """f'(y)^2 of a function at the values of a signal that `POINTS` stand for; None for one of several groups."""
    if len(signal.shares) != 1:
        return None
    values = _all_values(signal)
    step = 1e-4 * float(np.sqrt(signal.squares[0]))
    return np.square((activation(values + step) - activation(values - step)) / (2 * step))


def gradient_by_term(
    by_value: Array | None, terms: Sequence[Signal], factors: Sequence[float], place: int
) -> Array | None:
    """The mean square of a sum's gradient where one of its terms has a given value.

    Args:
        by_value: That where the sum has a given value, as in `Signal`.
        terms: The terms of the sum.
        factors: What each is multiplied by.
        place: Of which term.

    Returns:
        Shaped as `by_value`; None where the gradient does not depend on the term.
    """
    if by_value is None or any(len(each.shares) != 1 for each in terms):
        return None
    rest = [each for index, each in enumerate(terms) if index != place]
    if not rest:
        return by_value
    others = total(rest, [factor for index, factor in enumerate(factors) if index != place])
    own, far, summed = (_all_values(each) for each in (terms[place], others, total(terms, factors)))
    values = factors[place] * own[:, np.newaxis] + far
    return np.interp(np.interp(values, summed, POINTS), POINTS, by_value) @ WEIGHTS


def _all_values(signal: Signal) -> Array:
    values = _values(signal)
    return _normal_values(signal) if values is None else values


def _normal_values(signal: Signal) -> Array:
    return signal.mean[0] + np.sqrt(max(float(signal.squares[0] - signal.mean[0] ** 2), 0.0)) * POINTS


def _values(term: Signal) -> Array | None:
    """The values of a term at `POINTS` of the normal value behind it; None where it counts as normal itself."""
    source = term.source
    if term.activation is None or source is None or len(source.shares) != 1:
        return None
    std = np.sqrt(max(float(source.squares[0] - source.mean[0] ** 2), 0.0))
    values = term.activation(source.mean[0] + std * POINTS)
    squares = float(WEIGHTS @ values**2)
    # A pooling in between has changed the distribution: it is nearer to normal then.
    return values if np.isclose(squares, term.squares[0], rtol=0.05) else None


def _independent_sum(one: Array, other: Array) -> Array:
    """Quantiles at `POINTS` of the sum of two independent values."""
    order = np.argsort((one[:, np.newaxis] + other).ravel())
    weights = np.multiply.outer(WEIGHTS, WEIGHTS).ravel()[order]
    below = np.cumsum(weights) - weights / 2
    return np.interp(np.cumsum(WEIGHTS) - WEIGHTS / 2, below, (one[:, np.newaxis] + other).ravel()[order])


def _quantiles(values: Array, variance: float) -> Array:
    """Quantiles at `POINTS`, about their mean, of the sum of such a value and a normal one of this variance."""
    centred = values - WEIGHTS @ values
    spread = np.sqrt(variance + WEIGHTS @ centred**2)
    std = max(np.sqrt(variance), _SMOOTH * spread)
    grid = np.linspace(centred.min() - 6 * std, centred.max() + 6 * std, _GRID)
    density = np.exp(-(((grid[:, np.newaxis] - centred) / std) ** 2) / 2) @ WEIGHTS
    below = np.cumsum(density) - density / 2
    above = np.cumsum(density[::-1])[::-1] - density / 2
    tails = np.clip(np.minimum(below, above) / density.sum(), 1e-300, 0.5)
    normal = np.array([NormalDist().inv_cdf(tail) for tail in tails]) * np.where(below < above, 1.0, -1.0)
    quantiles = np.interp(POINTS, normal, grid)
    return quantiles - WEIGHTS @ quantiles


def _with_source(signal: Signal, quantiles: Quantiles) -> Signal:
    """A sum with the standard normal signal of which it is a function."""
    standard = Signal(np.ones(1), np.zeros(1), np.append(1.0, _CORRELATIONS)[np.newaxis], np.zeros(1))
    products = quantiles.forward(standard).near[0, 1:]
    near = np.interp(signal.near, products, _CORRELATIONS)
    near.reshape(-1)[0] = 1.0
    source = Signal(np.ones(1), np.zeros(1), near, np.interp(signal.others, products, _CORRELATIONS))
    return replace(signal, activation=quantiles, source=replace(source, profile=signal.profile))
