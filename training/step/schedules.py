"""The learning rate as a function of the step, and of the validation error where it waits for a plateau."""

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from training.config import Config
from training.errors import InputError

_Factor = Callable[[tf.Tensor], tf.Tensor]


class Improvement(tf.Module):
    """Follows a figure from evaluation to evaluation: its best value, and how long ago that was.

    Both lie in variables, which a checkpoint holds.

    Args:
        larger_is_better: Whether the figure is to rise, as an accuracy, or to fall, as a loss.
    """

    def __init__(self, larger_is_better: bool) -> None:
        super().__init__()
        worst = -math.inf if larger_is_better else math.inf
        # in float32 an error of 0.4 would be lower than the same error before
        self.best = tf.Variable(worst, dtype=tf.float64, trainable=False, name="best")
        self.since = tf.Variable(0, dtype=tf.int64, trainable=False, name="since")
        self._sign = 1 if larger_is_better else -1

    def observe(self, figure: float) -> bool:
        """Takes an evaluation's figure and returns whether it is the best so far.

        To be called outside of replicas, and on every worker with the same figure.
        """
        improves = self._sign * figure > self._sign * float(self.best.numpy())
        if improves:
            self.best.assign(figure)
            self.since.assign(0)
        else:
            self.since.assign_add(1)
        return improves


class Plateau(Improvement):
    """Divides the learning rate when the validation error has stopped falling.

    Args:
        patience: The number of evaluations in a row without a lower error after which the rate drops.
        drop_factor: The divisor.
        max_drops: How often the rate may drop; after that it stays. The paper's rate has three values.

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 3.1: the rate is "switched when the error plateaus".
    """

    def __init__(self, patience: int, drop_factor: float, max_drops: int = 2) -> None:
        super().__init__(larger_is_better=False)
        self.drops = tf.Variable(0, dtype=tf.int64, trainable=False, name="drops")
        self._patience = patience
        self._drop_factor = drop_factor
        self._max_drops = max_drops

    def observe(self, figure: float) -> bool:
        """Takes an evaluation's error and returns whether the rate drops for it."""
        super().observe(figure)
        if int(self.since.numpy()) < self._patience or int(self.drops.numpy()) >= self._max_drops:
            return False
        self.since.assign(0)
        self.drops.assign_add(1)
        return True

    def factor(self, step: tf.Tensor) -> tf.Tensor:
        """The rate's factor, the same at any step."""
        return self._drop_factor ** -tf.cast(self.drops, tf.float32)


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a step, counted from 0: it rises linearly from 0 to its peak, times a factor.

    Args:
        peak: The rate where both are 1.
        warmup_steps: The number of steps over which it rises.
        factor: From the step, a float32 tensor, to a factor: a schedule of Keras, or a plateau's.
    """

    def __init__(self, peak: float, warmup_steps: int, factor: _Factor) -> None:
        self._peak = peak
        self._warmup_steps = warmup_steps
        self._factor = factor

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of the step after `step` steps."""
        step = tf.cast(tf.convert_to_tensor(step), tf.float32)
        rate = self._peak * self._factor(step)
        return rate * tf.minimum(step / self._warmup_steps, 1.0) if self._warmup_steps else rate


def make_schedule(config: Config, plateau: Plateau | None = None) -> Warmup:
    """Builds the schedule that a config describes.

    Args:
        config: The experiment, its `steps` resolved.
        plateau: Needed where `schedule` is plateau.

    Raises:
        InputError: The schedule's fields do not fit the run.
    """
    if config.warmup_steps >= config.steps:
        raise InputError(f"warmup_steps is {config.warmup_steps}, but must be below steps, {config.steps}")
    return Warmup(config.learning_rate, config.warmup_steps, _factor(config, plateau))


def _factor(config: Config, plateau: Plateau | None) -> _Factor:
    schedules = keras.optimizers.schedules
    steps_left = config.steps - config.warmup_steps
    if config.schedule == "plateau":
        assert plateau is not None
        return plateau.factor
    if config.schedule == "steps":
        drops = _ascending(config.drop_steps)
        values = [config.drop_factor**-index for index in range(len(drops) + 1)]
        # Keras changes the value after a boundary, so the step after `drop` steps is beyond the boundary before it.
        piecewise: _Factor = schedules.PiecewiseConstantDecay([drop - 1 for drop in drops], values)
        return piecewise
    falling = {
        "cosine": schedules.CosineDecay(1.0, steps_left),
        "linear": schedules.PolynomialDecay(1.0, steps_left, end_learning_rate=0.0),
    }
    return lambda step: falling[config.schedule](tf.maximum(step - config.warmup_steps, 0.0))


def _ascending(drop_steps: tuple[int, ...]) -> tuple[int, ...]:
    if not drop_steps or list(drop_steps) != sorted(set(drop_steps)):
        given = ",".join(map(str, drop_steps)) or "empty"
        raise InputError(f"drop_steps is {given}, but must be ascending steps, as 30000,60000, for the schedule steps")
    return drop_steps
