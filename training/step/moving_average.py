"""A moving average of the weights, which often judges better than the weights themselves."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from training.distribute.strategy import update_copies


class MovingAverage(tf.Module):
    """The exponential moving average of a model's trainable weights; a checkpoint holds its variables.

    It starts as a copy of the weights, and forgets fast while it is young: after step t, from 1, the average keeps
    `min(decay, (1 + t) / (10 + t))` of itself. To be made under the strategy's scope.

    Args:
        model: Built model. Statistics that its layers move are averages already, and are not averaged again.
        decay: What the average keeps of itself in a step, below 1.

    Reference:
        Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the start is that of
        TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        super().__init__()
        self.values = [
            tf.Variable(weight.value, trainable=False, name=weight.path) for weight in model.trainable_variables
        ]
        self._decay = decay

    def update(self, model: keras.Model, step: tf.Tensor) -> None:
        """Moves the average towards the weights, inside a replica.

        Args:
            model: The one it was made of.
            step: Steps before this one.
        """
        t = tf.cast(step, tf.float32) + 1
        share = 1 - tf.minimum(self._decay, (1 + t) / (10 + t))
        update_copies(self.values, _approach, model.trainable_variables, [share] * len(self.values))

    def copy_to(self, model: keras.Model) -> None:
        """Gives the model the averaged weights."""
        for weight, value in zip(model.trainable_variables, self.values, strict=True):
            weight.assign(value)

    @contextlib.contextmanager
    def applied(self, model: keras.Model) -> Iterator[None]:
        """Gives the model the averaged weights for the length of a `with` block, and its own ones back after it."""
        own = [tf.identity(weight.value) for weight in model.trainable_variables]
        self.copy_to(model)
        try:
            yield
        finally:
            for weight, value in zip(model.trainable_variables, own, strict=True):
                weight.assign(value)


def _approach(average: tf.Variable, weight: tf.Variable, share: tf.Tensor) -> None:
    average.assign_add(share * (weight - average))
