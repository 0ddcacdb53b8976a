"""Pooling of a signal by the mean or the maximum over a window of positions."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_prelu.walk.positions import NEAR, AxisMap, mean_pooling, over_all, taps
from keras_prelu.walk.signal import Array, Signal

_OUTER, _OUTER_WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_INNER, _INNER_WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
_LARGEST = np.linspace(-6.0, 9.0, 151)  # where the largest of several standard normal values lies


@dataclass(frozen=True)
class Window:
    """A pooling window along one axis.

    Attributes:
        size: The number of positions; None where it is unknown.
        window: How many the window covers.
        stride: Its step.
        padding: `"valid"` or `"same"`.
    """

    size: int | None
    window: int
    stride: int
    padding: str = "valid"

    @property
    def covered(self) -> float:
        """How many positions the window covers on average, without padding."""
        return float(np.sum(taps(self.size, self.window, self.stride, 1, self.padding)) / self._outputs)

    @property
    def thinning(self) -> float:
        """The number of outputs per input."""
        return self._outputs / taps(self.size, self.window, self.stride, 1, self.padding)[0].shape[1]

    @property
    def _outputs(self) -> int:
        return len(taps(self.size, self.window, self.stride, 1, self.padding)[0])

    def mean(self, backward: bool = False) -> AxisMap:
        """The map of the mean over the window."""
        return mean_pooling(self.size, self.window, self.stride, self.padding, backward)


def without_axes(signal: Signal, sizes: Sequence[int | None]) -> Signal:
    """The mean over all positions of every axis."""
    if signal.axes != len(sizes):
        return signal
    return at_one_position(signal.moved([over_all(size) for size in sizes]))


def at_one_position(signal: Signal) -> Signal:
    """A signal seen at one position, without its position axes."""
    source = signal.source and at_one_position(signal.source)
    return replace(signal, near=signal.squares, source=source)


def spread(gradient: Signal, sizes: Sequence[int | None]) -> Signal:
    """The gradient of a mean over all positions: the same at each, divided by their number."""
    number = math.prod(size or over_all_size() for size in sizes)
    shape = (len(gradient.shares), *[NEAR + 2] * len(sizes))
    near = np.broadcast_to(gradient.squares.reshape(-1, *[1] * len(sizes)), shape)
    return replace(gradient.bare(), near=near).times(1 / number**2)


def over_all_size() -> int:
    """The size that an unknown number of positions is taken for."""
    return taps(None, 1, 1, 1, "valid")[0].shape[0]


def max_pooled(signal: Signal, windows: Sequence[Window]) -> Signal:
    """The largest value of each window.

    With f increasing and z normal, it is f of the largest z. The z of a window count as equally correlated.

    Args:
        signal: The signal; max pooling does nothing to one without position axes.
        windows: A window for each axis.
    """
    if signal.axes != len(windows):
        return signal
    normal = signal.source or signal
    averages = normal.moved([window.mean() for window in windows])
    number = math.prod(window.covered for window in windows)
    shared = _overlaps(windows)
    mean, near, others = np.empty_like(signal.mean), np.empty_like(averages.near), np.empty_like(signal.others)
    for group in range(len(signal.shares)):
        largest = _Largest(signal, group, averages, number)
        mean[group], squares = largest.moments()
        apart = (averages.near[group] - shared * normal.squares[group] / number) / (1 - shared / max(number, 1 + 1e-9))
        between = largest.products(np.append(apart.ravel(), normal.others[group]))
        kept = shared / (2 - shared)
        near[group] = (1 - kept) * between[:-1].reshape(near[group].shape) + kept * squares
        others[group] = between[-1]
    return Signal(signal.shares, mean, near, others, signal.activation, profile=averages.profile)


def _overlaps(windows: Sequence[Window]) -> Array:
    """The part of a window that it shares with one at each distance."""
    parts = [np.maximum(0.0, 1 - np.arange(NEAR + 2) * window.stride / window.window) for window in windows]
    return functools.reduce(np.multiply.outer, parts)


class _Largest:
    """The largest of a number of equally correlated normal values, behind the function that follows them."""

    def __init__(self, signal: Signal, group: int, averages: Signal, number: float) -> None:
        normal = signal.source or signal
        self.function = signal.activation if signal.source is not None and signal.activation else lambda values: values
        self.centre = float(normal.mean[group])
        square = float(normal.squares[group])
        self.variance = max(square - self.centre**2, 1e-12 * square, 1e-300)
        average = float(averages.squares[group])
        distinct = (average - square / number) / (1 - 1 / number) if number > 1 + 1e-9 else square
        self.within = float(np.clip((distinct - self.centre**2) / self.variance, 0.0, 1.0))
        below = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in _LARGEST])
        density = np.exp(-(_LARGEST**2) / 2) * below ** (number - 1)
        self.weights = density / density.sum()

    def _values(self, outer: float) -> Array:
        """Axes: what two windows have in common, what a window has, the largest of what each value has alone."""
        std = math.sqrt(self.variance)
        points = (
            math.sqrt(outer) * _OUTER[:, np.newaxis, np.newaxis]
            + math.sqrt(max(self.within - outer, 0.0)) * _INNER[:, np.newaxis]
            + math.sqrt(1 - self.within) * _LARGEST
        )
        return self.centre + std * points

    def _expected(self, values: Array) -> Array:
        inner = values @ self.weights @ _INNER_WEIGHTS / _INNER_WEIGHTS.sum()
        return np.asarray(inner)

    def moments(self) -> tuple[float, float]:
        """The mean and the mean square."""
        values = self.function(self._values(self.within))
        weights = _OUTER_WEIGHTS / _OUTER_WEIGHTS.sum()
        return float(weights @ self._expected(values)), float(weights @ self._expected(values**2))

    def slopes(self) -> float:
        """The mean square of the derivative there."""
        points, step = self._values(self.within), 1e-4 * math.sqrt(self.variance)
        slopes = (self.function(points + step) - self.function(points - step)) / (2 * step)
        return float(_OUTER_WEIGHTS @ self._expected(slopes**2) / _OUTER_WEIGHTS.sum())

    def products(self, covariances: Array) -> Array:
        """E[m m'] for two windows whose values have these covariances."""
        correlations = np.clip((covariances - self.centre**2) / self.variance, 0.0, self.within).round(6)
        distinct, index = np.unique(correlations, return_inverse=True)
        weights = _OUTER_WEIGHTS / _OUTER_WEIGHTS.sum()
        values = [weights @ self._expected(self.function(self._values(float(each)))) ** 2 for each in distinct]
        return np.array(values)[index]


def max_pooled_gradient(gradient: Signal, signal: Signal, windows: Sequence[Window]) -> Signal:
    """The gradient of a max pooling: it all goes to the largest value of each window.

    There the function before the pooling is steeper than on average: a ReLU lets nearly all of the gradient pass. The
    factor by which it is comes in here, as the rule of that function takes its average.

    Args:
        gradient: The gradient with respect to the pooled values.
        signal: The signal before the pooling.
        windows: A window for each axis.
    """
    if signal.axes != len(windows):
        return gradient
    averages = (signal.source or signal).moved([window.mean() for window in windows])
    number = math.prod(window.covered for window in windows)
    steeper = np.ones(len(signal.shares))
    if signal.source is not None and signal.activation is not None:
        usual, _ = signal.activation.derivative(signal.source)
        for group in range(len(steeper)):
            steeper[group] = (
                _Largest(signal, group, averages, number).slopes() / usual.reshape(len(steeper), -1)[group, 0]
            )
    back = gradient.bare().grouped_as(signal)
    moved = back.moved([window.mean(backward=True) for window in windows])
    near = moved.near.copy()
    near.reshape(len(near), -1)[:, 0] = back.squares * math.prod(window.thinning for window in windows)
    result = replace(moved, near=near).times(steeper)
    return replace(result, activation=gradient.activation)
