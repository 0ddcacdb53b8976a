"""Elementwise functions and the statistics of a normally distributed signal behind them.

Rectifiers have closed forms. For every other function f, with z and z' standard normal of correlation r, f is expanded
in the normalized Hermite polynomials, f(mean + std z) = sum of c_k h_k(z), and Mehler's formula gives

$$E[f f'] = \\sum_k c_k^2 r^k, \\qquad E[\\dot f \\dot f'] = \\sum_k k c_k^2 r^{k-1} / std^2.$$

The coefficients are integrals against the normal density. The trapezoidal rule takes them: like Gauss-Hermite
quadrature it is exact to rounding for smooth functions, and unlike it hardly worse for those with a kink (relu6: 1e-5
with 1,201 nodes, Gauss-Hermite 4e-3 with 64).
"""

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prelu.layer.prelu import PReLU
from keras_prelu.walk.signal import Activation, Array, Signal

_NODES = np.linspace(-12.0, 12.0, 1201)
_WEIGHTS = np.exp(-(_NODES**2) / 2) / math.sqrt(2 * math.pi) * (_NODES[1] - _NODES[0])
_ACTIVATION_LAYERS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, PReLU)
_ORDER = 64  # of the Hermite series; what is left is added at correlation 1


@dataclass(frozen=True)
class Rectifier:
    """max(0, x) + a min(0, x), whose slopes a may differ from channel to channel.

    Attributes:
        mean_slope: The mean of the slopes.
        mean_square_slope: The mean of their squares.
    """

    mean_slope: float
    mean_square_slope: float

    @property
    def name(self) -> str:
        """The slope, as text."""
        return f"{self.negative_slope:.3g}"

    @property
    def negative_slope(self) -> float:
        """The root of the mean square of the slopes: second moments are linear in the square."""
        root = math.sqrt(self.mean_square_slope)
        return self.mean_slope if math.isclose(root, abs(self.mean_slope), rel_tol=1e-6) else root

    def __call__(self, values: Array) -> Array:
        """The rectifier of the mean slope."""
        return np.where(values > 0, values, self.mean_slope * values)

    def forward(self, signal: Signal) -> Signal:
        """Equations 10 and 15 without a mean; in general, moments of a cut normal distribution."""
        std, standardized, above = _positive_part(signal)
        mean = signal.mean * above + std * _density(standardized)
        squares = std**2 * above + signal.mean * mean
        near, others = _on_pairs(signal, lambda group, r: self._pairs(signal, group, r, mean, squares, above))
        mean = mean + self.mean_slope * (signal.mean - mean)
        return Signal(signal.shares, mean, near, others, self, signal, signal.profile)

    def _pairs(self, signal: Signal, group: int, r: Array, mean: Array, squares: Array, above: Array) -> Array:
        """(1 - 2a + a^2) E[x+ x+'] + 2(a - a^2) E[x+ x'] + a^2 E[x x']."""
        centre, variance = signal.mean[group], _variance(signal)[group]
        if centre == 0:
            positive = variance * (np.sqrt(1 - r**2) + (math.pi - np.arccos(r)) * r) / (2 * math.pi)
        else:
            series = _Series(lambda x: np.maximum(x, 0), centre, math.sqrt(variance), squares[group])
            positive = series.values(r)
        crossed = centre * mean[group] + r * variance * above[group]
        slope, square = self.mean_slope, self.mean_square_slope
        return (
            (1 - 2 * slope + square) * positive + 2 * (slope - square) * crossed + square * (r * variance + centre**2)
        )

    def derivative(self, signal: Signal) -> tuple[Array, Array]:
        """E[f' f'] from the probability that both values are positive."""
        _, _, above = _positive_part(signal)

        def pairs(group: int, r: Array) -> Array:
            centre, variance = signal.mean[group], _variance(signal)[group]
            if centre == 0:
                both = 0.25 + np.arcsin(r) / (2 * math.pi)
            else:
                series = _Series(lambda x: np.maximum(x, 0), centre, math.sqrt(variance), 0.0, float(above[group]))
                both = series.derivatives(r)
            slope, square = self.mean_slope, self.mean_square_slope
            return (1 - 2 * slope + square) * both + 2 * (slope - square) * above[group] + square

        return _on_pairs(signal, pairs)


@dataclass(frozen=True)
class Elementwise:
    """Any other function of single values.

    Attributes:
        name: The name in reports.
        function: From a float64 array to one of its shape.
    """

    name: str
    function: Callable[[Array], Array]

    negative_slope = None

    def __call__(self, values: Array) -> Array:
        """The function itself."""
        return self.function(values)

    def forward(self, signal: Signal) -> Signal:
        """Mean and covariances by quadrature."""
        series = self._series(signal)
        near, others = _on_pairs(signal, lambda group, r: series[group].values(r))
        mean = np.array([each.mean for each in series])
        return Signal(signal.shares, mean, near, others, self, signal, signal.profile)

    def derivative(self, signal: Signal) -> tuple[Array, Array]:
        """Covariances of the derivative by quadrature."""
        series = self._series(signal)
        return _on_pairs(signal, lambda group, r: series[group].derivatives(r))

    def _series(self, signal: Signal) -> list["_Series"]:
        return [
            _Series(self.function, float(mean), math.sqrt(variance))
            for mean, variance in zip(signal.mean, _variance(signal), strict=True)
        ]


@dataclass(frozen=True)
class Composed:
    """One elementwise function behind another.

    Attributes:
        outer: The later one.
        inner: The earlier one.
    """

    outer: Activation
    inner: Activation

    @property
    def name(self) -> str:
        """Both names, the later one first."""
        return f"{self.outer.name} of {self.inner.name}"

    @property
    def negative_slope(self) -> float | None:
        """That of a rectifier behind a sum; else None, as two rectifiers are made one rectifier by `compose`."""
        return self.outer.negative_slope if self.inner.negative_slope == 1 else None

    def __call__(self, values: Array) -> Array:
        """The later function of the earlier one."""
        return self.outer(self.inner(values))

    def forward(self, signal: Signal) -> Signal:
        """As of any function."""
        return Elementwise(self.name, self).forward(signal)

    def derivative(self, signal: Signal) -> tuple[Array, Array]:
        """As of any function."""
        return Elementwise(self.name, self).derivative(signal)


def compose(outer: Activation, inner: Activation | None) -> Activation:
    """One function behind another; the slopes of two rectifiers in a row multiply, as long as none is negative."""
    if inner is None:
        return outer
    if isinstance(outer, Rectifier) and isinstance(inner, Rectifier) and inner.mean_slope >= 0:
        return Rectifier(outer.mean_slope * inner.mean_slope, outer.mean_square_slope * inner.mean_square_slope)
    return Composed(outer, inner)


class _Series:
    """The Hermite series of one function at one mean and standard deviation."""

    def __init__(
        self,
        function: Callable[[Array], Array],
        mean: float,
        std: float,
        squares: float | None = None,
        slopes: float | None = None,
    ) -> None:
        values = function(mean + std * _NODES)
        self.coefficients = _hermite() @ values
        self.std = std
        self._function, self._centre = function, mean
        self._squares, self._slopes = squares, slopes
        self._squares = float(_WEIGHTS @ values**2) if squares is None else squares

    @property
    def mean(self) -> float:
        """E[f]."""
        return float(self.coefficients[0])

    def values(self, r: Array) -> Array:
        """E[f f'] at each correlation."""
        powers = self.coefficients**2
        rest = float(self._squares or 0.0) - powers.sum()
        return np.polynomial.polynomial.polyval(r, powers) + rest * r ** (_ORDER + 1)

    def derivatives(self, r: Array) -> Array:
        """E of the product of derivatives at each correlation."""
        if self._slopes is None:
            step = 1e-3 * self.std
            points = self._centre + self.std * _NODES
            slopes = (self._function(points + step) - self._function(points - step)) / (2 * step)
            self._slopes = float(_WEIGHTS @ slopes**2)
        powers = (np.arange(_ORDER + 1) * self.coefficients**2)[1:] / self.std**2
        rest = self._slopes - powers.sum()
        return np.polynomial.polynomial.polyval(r, powers) + rest * r**_ORDER


@functools.cache
def _hermite() -> Array:
    """Row k: the weights of the quadrature times the k-th normalized Hermite polynomial."""
    rows = [np.ones_like(_NODES), _NODES]
    for order in range(2, _ORDER + 1):
        rows.append((_NODES * rows[-1] - math.sqrt(order - 1) * rows[-2]) / math.sqrt(order))
    return np.array(rows) * _WEIGHTS


def _variance(signal: Signal) -> Array:
    """The variance about the mean; it is never 0, as correlations divide by it."""
    return np.maximum(signal.squares - signal.mean**2, np.maximum(1e-12 * signal.squares, sys.float_info.min))


def _positive_part(signal: Signal) -> tuple[Array, Array, Array]:
    """The standard deviation, the mean in units of it, and the probability of a positive value."""
    std = np.sqrt(_variance(signal))
    standardized = signal.mean / std
    above = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in standardized])
    return std, standardized, above


def _density(values: Array) -> Array:
    return np.exp(-(values**2) / 2) / math.sqrt(2 * math.pi)


def _on_pairs(signal: Signal, function: Callable[[int, Array], Array]) -> tuple[Array, Array]:
    """A function of a group and of correlations, applied to those within an image and between images."""
    variance = _variance(signal)
    near, others = np.empty_like(signal.near), np.empty_like(signal.others)
    for group, (mean, scale) in enumerate(zip(signal.mean, variance, strict=True)):
        centred = np.append(signal.near[group].ravel(), signal.others[group]) - mean**2
        values = function(group, np.clip(centred / scale, -1.0, 1.0))
        near[group], others[group] = values[:-1].reshape(near[group].shape), values[-1]
    return near, others


def linear_share(activation: Activation, signal: Signal) -> float:
    """The part of the variance behind a function that is linear in the signal before it: 0.73 of a ReLU's."""
    mixed = signal.mixed()
    values = activation(mixed.mean[0] + math.sqrt(_variance(mixed)[0]) * _NODES)
    linear, mean = float((_WEIGHTS * _NODES) @ values) ** 2, float(_WEIGHTS @ values)
    varying = float(_WEIGHTS @ values**2) - mean**2
    return linear / varying if varying > 0 else 0.0


def leaning(activation: Activation) -> float:
    """E[x f'(x)] / E[f'(x)] of a function f for standard normal x: 0 of an odd one, 0.8 of a ReLU."""
    step = 1e-3
    slopes = (activation(_NODES + step) - activation(_NODES - step)) / (2 * step)
    mean = float(_WEIGHTS @ slopes)
    return float(_WEIGHTS @ (_NODES * slopes)) / mean if abs(mean) > 1e-6 else 0.0


def activation_of(source: Any) -> Activation | str | None:
    """The elementwise function that a layer, a function or a name stands for.

    A function is tried on numbers, so that any spelling of a rectifier is found: `keras.activations.relu`,
    `"leaky_relu"`, a partial or any other function. One that is a rectifier up to 4, as `relu6`, counts as one: a
    signal of unit variance hardly ever goes beyond.

    Args:
        source: An activation layer, a function, a name, an operation of `keras.ops`, or None.

    Returns:
        The function; None for a linear one; as text the reason where it is not known what it does to a signal.
    """
    if isinstance(source, PReLU | layers.PReLU):
        return rectifier(source.alpha)
    if isinstance(source, layers.Activation):
        source = source.activation
    if isinstance(source, layers.LeakyReLU):
        return Rectifier(float(source.negative_slope), float(source.negative_slope) ** 2)
    if source is None or source is keras.activations.linear:
        return None
    if source is keras.activations.relu:
        return Rectifier(0.0, 0.0)
    if isinstance(source, keras.Operation):  # a layer is one too
        return _tried(source.call, type(source).__name__.lower())
    function = keras.activations.get(source)
    return _tried(function, getattr(function, "__name__", type(function).__name__))


def negative_slope(activation: Any) -> float | None:
    """The slope of a rectifier for negative inputs.

    Args:
        activation: A layer, a function, a name, or None.

    Returns:
        The slope, 0 for ReLU and 1 for a linear activation or None; the root of the mean square of slopes that a
        layer has several of. None where the activation is no rectifier.

    Examples:
        >>> import keras
        >>> [negative_slope(activation) for activation in ("relu", "linear", "gelu", keras.layers.LeakyReLU(0.5))]
        [0.0, 1.0, None, 0.5]
    """
    if isinstance(activation, keras.Layer) and not isinstance(activation, _ACTIVATION_LAYERS):
        return None
    function = activation_of(activation)
    if function is None:
        return 1.0
    return None if isinstance(function, str) else function.negative_slope


def rectifier(slopes: Any) -> Rectifier:
    """The rectifier of one or several slopes, given as numbers or as a tensor."""
    values = np.asarray(ops.convert_to_numpy(slopes), "float64")
    return Rectifier(float(values.mean()), float(np.square(values).mean()))


def _tried(function: Callable[[Any], Any], name: str) -> Activation | str | None:
    def on_arrays(values: Array) -> Array:
        return _evaluated(function, values)

    points = np.concatenate([np.linspace(-4, 4, 33), [-0.03, 0.07, 1.1]]).reshape(9, 4)
    try:
        values, again = on_arrays(points), on_arrays(points)
        moved = on_arrays(points.ravel()[20::-1].reshape(3, 7))
    except Exception as error:  # a stranger's function: whatever it raises is the reason
        return f"can't be applied to an array ({type(error).__name__})"
    if values.shape != points.shape:
        return "isn't elementwise"
    if not np.all(np.isfinite(values)):
        return "isn't finite on -4 to 4"
    if not np.array_equal(values, again):
        return "gives other values each time"
    if moved.shape != (3, 7) or not np.allclose(moved.ravel()[::-1], values.ravel()[:21], rtol=1e-5, atol=1e-6):
        return "isn't elementwise"
    slope = round(0.0 - float(on_arrays(np.array([[-1.0]])).item()), 6)
    if np.allclose(values, np.where(points > 0, points, slope * points), rtol=1e-5, atol=1e-7):
        return None if slope == 1 else Rectifier(slope, slope**2)
    return Elementwise(name, on_arrays)


def _evaluated(function: Callable[[Any], Any], values: Array) -> Array:
    dtype = "float32" if keras.backend.backend() == "jax" else "float64"  # JAX has no float64 unless told so
    return np.asarray(ops.convert_to_numpy(function(ops.convert_to_tensor(values, dtype))), "float64")
