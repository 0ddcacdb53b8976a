"""A moving average of the weights, which often classifies better than the weights themselves."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from training.distribute.strategy import update_copies


class MovingAverage(tf.Module):
    """The exponential moving average of weights; a checkpoint holds its variables.

    It starts as a copy of the weights, and forgets fast while it is young: after step t, from 1, the average keeps
    `min(decay, (1 + t) / (10 + t))` of itself. To be made under the strategy's scope.

    Args:
        weights: What is averaged: the trainable variables. Statistics that layers move are averages already.
        decay: What the average keeps of itself in a step, below 1.

    Reference:
        Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the start is that of
        TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, weights: Sequence[keras.Variable], decay: float) -> None:
        super().__init__()
        self.values = [tf.Variable(weight.value, trainable=False, name=weight.path) for weight in weights]
        self._weights = list(weights)
        self._decay = decay

    def update(self, step: tf.Tensor) -> None:
        """Moves the average towards the weights, inside a replica.

        Args:
            step: The number of steps before this one.
        """
        t = tf.cast(step, tf.float32) + 1
        share = 1 - tf.minimum(self._decay, (1 + t) / (10 + t))
        update_copies(self.values, _approach, self._weights, [share] * len(self.values))

    def copy_to_weights(self) -> None:
        """Gives the weights the averaged values."""
        for weight, value in zip(self._weights, self.values, strict=True):
            weight.assign(value)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Gives the weights the averaged values for the length of a `with` block, and their own back after it."""
        own = [tf.identity(weight.value) for weight in self._weights]
        self.copy_to_weights()
        try:
            yield
        finally:
            for weight, value in zip(self._weights, own, strict=True):
                weight.assign(value)


def _approach(average: tf.Variable, weight: tf.Variable, share: tf.Tensor) -> None:
    average.assign_add(share * (weight - average))
