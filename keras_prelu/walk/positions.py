"""Linear maps along one position axis (a row, a column, time), and their effect on covariances between positions."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

NEAR = 4  # distances up to here are distinguished; all larger ones count as one
_LONGEST = 128  # longer axes are taken as this long: their ends do not matter

Array = np.ndarray[Any, np.dtype[np.float64]]


_EVEN = 0.02  # a profile within this of 1 on average counts as flat


@dataclass(frozen=True)
class Effect:
    """The effect of a linear map of positions on the statistics of a signal.

    Attributes:
        near: Shape `(NEAR + 2, NEAR + 2)`. Row: the distance of two outputs; column: that of two inputs; entry: the
            factor with which the covariance at the one goes into the covariance at the other.
        others: The factor on covariances between images.
        mean: The factor on the mean.
        squares: Shape `(outputs, NEAR + 2)`: the factors on the covariances that make up each output's second moment.
    """

    near: Array
    others: float
    mean: float
    squares: Array


@dataclass(frozen=True, eq=False)
class AxisMap:
    """A sum over taps, each a linear map of positions with an independent weight.

    $$E[y_p y_q] = \\sum_t \\sum_{i,j} L^t_{pi} L^t_{qj} E[x_i x_j]$$

    A pooling is one tap with many entries per row, a convolution one tap for each position of its kernel with one entry
    per row.

    Attributes:
        taps: Shape `(outputs, inputs)` each.
    """

    taps: tuple[Array, ...]

    @functools.cached_property
    def on_flat(self) -> Effect:
        """The effect on a signal that is alike at every position."""
        return self._effect(np.ones(self.taps[0].shape[1]))

    def on(self, profile: Array | None) -> Effect:
        """The effect on a signal with a profile along the axis.

        Args:
            profile: The second moment at each position, with a mean of 1; None where it is the same everywhere.
        """
        inputs = self.taps[0].shape[1]
        return self.on_flat if profile is None or len(profile) != inputs else self._effect(np.sqrt(profile))

    def _effect(self, root: Array) -> Effect:
        """Counts what goes from a distance to a distance, between positions p and q in proportion root_p root_q."""
        outputs, inputs = self.taps[0].shape
        scaled = [tap * root for tap in self.taps]
        rows, columns = _distances(outputs), _distances(inputs)
        near, squares = np.zeros((NEAR + 2, NEAR + 2)), np.zeros((outputs, NEAR + 2))
        for column in range(min(NEAR + 2, inputs)):
            at_column = (columns == column).astype("float64")
            usual = root @ at_column @ root / at_column.sum()  # what the covariances given were averaged with
            if usual == 0:
                continue
            covariances = sum(tap @ at_column @ tap.T for tap in scaled) / usual
            squares[:, column] = np.diag(covariances)
            for row in range(NEAR + 2):
                near[row, column] = np.mean(covariances[rows == row]) if row < outputs else near[row - 1, column]
        sums = [float(tap.sum()) / outputs / root.mean() for tap in scaled]
        return Effect(near, sum(each**2 for each in sums), sum(sums), squares)


def flattened(profile: Array) -> Array | None:
    """A profile with a mean of 1; None where it is nearly the same everywhere."""
    average = profile.mean()
    if average <= 0:
        return None
    relative = profile / average
    return None if np.abs(relative - 1).mean() < _EVEN else relative


def _distances(size: int) -> Any:
    positions = np.arange(size)
    return np.minimum(np.abs(positions[:, np.newaxis] - positions), NEAR + 1)


@functools.lru_cache(maxsize=4096)
def taps(size: int | None, window: int, stride: int, dilation: int, padding: str) -> tuple[Array, ...]:
    """The positions that each tap of a sliding window reads: a matrix of zeros and ones for each tap.

    Args:
        size: The number of positions; None where it is unknown.
        window: The number of taps.
        stride: The step of the window.
        dilation: The distance between two taps.
        padding: `"valid"`, `"same"` or `"causal"`, as in Keras.

    Returns:
        A matrix of shape `(outputs, size)` for each tap; a row of zeros where the tap reads padding.
    """
    extent = (window - 1) * dilation + 1
    size = _LONGEST if size is None else min(size, max(_LONGEST, extent))
    if padding == "valid":
        outputs, before = max((size - extent) // stride + 1, 1), 0
    else:
        outputs = -(-size // stride)
        missing = max((outputs - 1) * stride + extent - size, 0)
        before = missing if padding == "causal" else missing // 2
    matrices = []
    for tap in range(window):
        matrix = np.zeros((outputs, size))
        positions = np.arange(outputs) * stride + tap * dilation - before
        inside = (positions >= 0) & (positions < size)
        matrix[np.flatnonzero(inside), positions[inside]] = 1.0
        matrices.append(matrix)
    return tuple(matrices)


@functools.lru_cache(maxsize=4096)
def convolution(
    size: int | None, window: int, stride: int, dilation: int, padding: str, backward: bool = False
) -> AxisMap:
    """A convolution with independent weights of mean square 1 / window; `backward` that of its gradient."""
    matrices = [matrix / math.sqrt(window) for matrix in taps(size, window, stride, dilation, padding)]
    return AxisMap(tuple(matrix.T for matrix in matrices) if backward else tuple(matrices))


@functools.lru_cache(maxsize=4096)
def mean_pooling(size: int | None, window: int, stride: int, padding: str, backward: bool = False) -> AxisMap:
    """The mean over a sliding window, without what it reads of padding; `backward` that of its gradient."""
    matrix = np.sum(taps(size, window, stride, 1, padding), axis=0)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return AxisMap((matrix.T if backward else matrix,))


@functools.lru_cache(maxsize=1024)
def over_all(size: int | None) -> AxisMap:
    """The mean over all positions."""
    size = _LONGEST if size is None else min(size, _LONGEST)
    return AxisMap((np.full((1, size), 1 / size),))


@functools.lru_cache(maxsize=1024)
def resized(size: int | None, before: int, after: int, repeats: int = 1, backward: bool = False) -> AxisMap:
    """Zeros put before and after (or positions cut off, where negative), then each position repeated."""
    size = _LONGEST if size is None else min(size, _LONGEST)
    matrix = np.zeros((before + size + after, size)) if before + size + after > 0 else np.zeros((1, size))
    for position in range(size):
        if 0 <= position + before < len(matrix):
            matrix[position + before, position] = 1.0
    matrix = np.repeat(matrix, repeats, axis=0)
    return AxisMap((matrix.T if backward else matrix,))
