"""Softmax attention whose queries and keys are at their start: its logits are normally distributed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from keras_prelu.walk.fans import fans, mean_square
from keras_prelu.walk.graph import Call
from keras_prelu.walk.positions import NEAR, over_all
from keras_prelu.walk.signal import Obstacle, Signal


@dataclass(frozen=True)
class _Heads:
    """The signal between the projections, by the squares of their weights.

    Attributes:
        forward: n E[w^2] with the fan-in of query, key, value and output.
        backward: The same with the fan-out.
        square: The second moment of the layer's input.
        far: The mean of its covariances over all pairs of positions.
        length: The number of positions.
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]
    square: float
    far: float
    length: int

    @property
    def concentration(self) -> float:
        """The sum of the squares of one position's attention weights: exp(v) / n with v the variance of its logits."""
        variance = self.forward[0] * self.forward[1] * self.square * max(self.square - self.far, 0.0)
        return min(1.0, math.exp(min(variance, 700.0)) / self.length)


def _heads(call: Call, signal: Signal) -> _Heads:
    rows = fans(call.operation)[:4]
    squares = [mean_square(row.kernel) for row in rows]
    shape = call.input_shapes[0]
    length = (shape[1] or 128) if len(shape) > 2 and signal.axes == 1 else 1
    far = float(over_all(length).on_flat.near[0] @ signal.mixed().near[0]) if signal.axes == 1 else signal.second_moment
    return _Heads(
        tuple(row.fan_in * square for row, square in zip(rows, squares, strict=True)),
        tuple(row.fan_out * square for row, square in zip(rows, squares, strict=True)),
        signal.second_moment,
        far,
        length,
    )


def attended(call: Call, signal: Signal) -> Signal:
    """The signal behind attention: exact for many positions, where no weight is near 1."""
    heads = _heads(call, signal)
    factor = heads.forward[2] * heads.forward[3]
    if signal.axes != 1:
        return signal.times(factor)
    varying = heads.square - heads.far
    near = np.full(NEAR + 2, heads.far + varying / heads.length)
    near[0] = heads.far + heads.concentration * varying
    return replace(signal, mean=np.zeros(1), near=near[np.newaxis]).times(factor)


def attended_gradient(call: Call, gradient: Signal, arriving: Signal | Obstacle) -> Signal | Obstacle:
    """The gradient before attention, for each of its inputs on average: through values, queries and keys."""
    if isinstance(arriving, Obstacle):
        return arriving
    heads = _heads(call, arriving)
    behind = gradient.times(heads.backward[3])
    far = float(over_all(heads.length).on_flat.near[0] @ behind.near[0]) if behind.axes == 1 else behind.second_moment
    total = sum(_paths(heads, behind.second_moment, far)) / len(call.inputs)
    near = np.zeros_like(behind.near)
    near.reshape(1, -1)[:, 0] = total
    return replace(behind, near=near)


def _paths(heads: _Heads, square: float, far: float) -> Iterator[float]:
    """The second moment of the gradient that comes through the values, the queries and the keys."""
    (query, key, value, _), (query_back, key_back, value_back, _) = heads.forward, heads.backward
    yield (heads.concentration * (square - far) + far) * value_back
    varying = max(heads.square - heads.far, 0.0)
    logits = heads.concentration * square * value * varying
    yield logits * key * varying * query_back
    yield logits * query * heads.square * key_back
