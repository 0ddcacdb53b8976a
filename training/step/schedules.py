"""How the learning rate follows from the step, and from the validation error where it waits for a plateau."""

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from training.config import Config
from training.errors import InputError


class Plateau(tf.Module):
    """Finds out that the validation error has stopped falling, and divides the learning rate then.

    What it knows lies in variables, which a checkpoint holds: `best`, the lowest error so far; `since`, how many
    evaluations ago that was or the rate last dropped; `drops`, how often it dropped.

    Args:
        patience: Evaluations in a row without a lower error after which the rate drops.
        drop_factor: What it is divided by.
        max_drops: How often it may drop; after that it stays. The paper's rate has three values.
        min_delta: An error counts as lower if it is by more than this.

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 3.1: the rate is "switched when the error plateaus".
    """

    def __init__(self, patience: int, drop_factor: float, max_drops: int = 2, min_delta: float = 0.0) -> None:
        super().__init__()
        # in float32 an error of 0.4 would be lower than the same error before
        self.best = tf.Variable(math.inf, dtype=tf.float64, trainable=False, name="best")
        self.since = tf.Variable(0, dtype=tf.int64, trainable=False, name="since")
        self.drops = tf.Variable(0, dtype=tf.int64, trainable=False, name="drops")
        self._patience = patience
        self._drop_factor = drop_factor
        self._max_drops = max_drops
        self._min_delta = min_delta

    def observe(self, error: float) -> bool:
        """Takes an evaluation's error in, and tells whether the rate drops for it.

        To be called outside of replicas, and on every worker with the same error.
        """
        if error < float(self.best.numpy()) - self._min_delta:
            self.best.assign(error)
            self.since.assign(0)
            return False
        self.since.assign_add(1)
        if int(self.since.numpy()) < self._patience or int(self.drops.numpy()) >= self._max_drops:
            return False
        self.since.assign(0)
        self.drops.assign_add(1)
        return True

    def factor(self, step: tf.Tensor) -> tf.Tensor:
        """What the rate is multiplied by, at any step."""
        return self._drop_factor ** -tf.cast(self.drops, tf.float32)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a step, counted from 0: it rises linearly from 0 to its peak, while it falls by a factor.

    Args:
        peak: The rate where both are 1.
        warmup_steps: Steps over which it rises.
        factor: From the step, a float32 tensor, to a factor.
    """

    def __init__(self, peak: float, warmup_steps: int, factor: Callable[[tf.Tensor], tf.Tensor]) -> None:
        self._peak = peak
        self._warmup_steps = warmup_steps
        self._factor = factor

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of the step after so many."""
        step = tf.cast(tf.convert_to_tensor(step), tf.float32)
        rate = self._peak * self._factor(step)
        return rate * tf.minimum(step / self._warmup_steps, 1.0) if self._warmup_steps else rate


def make_schedule(config: Config, plateau: Plateau | None = None) -> Schedule:
    """Builds the schedule that a config describes.

    Args:
        config: The experiment.
        plateau: Needed where `schedule` is plateau.

    Raises:
        InputError: The schedule's fields do not fit the run.
    """
    if config.warmup_steps >= config.steps:
        raise InputError(f"warmup_steps is {config.warmup_steps}, but must be below steps, {config.steps}")
    if config.schedule == "cosine":
        factor = _cosine(config.warmup_steps, config.steps)
    elif config.schedule == "steps":
        factor = _drops(_ascending(config.drop_steps), config.drop_factor)
    elif config.schedule == "plateau" and plateau is not None:
        factor = plateau.factor
    else:
        raise InputError(f"schedule is {config.schedule!r}, but must be cosine, steps or plateau")
    return Schedule(config.learning_rate, config.warmup_steps, factor)


def _cosine(start: int, end: int) -> Callable[[tf.Tensor], tf.Tensor]:
    def factor(step: tf.Tensor) -> tf.Tensor:
        done = tf.clip_by_value((step - start) / (end - start), 0.0, 1.0)
        return (1 + tf.cos(math.pi * done)) / 2

    return factor


def _drops(drop_steps: tuple[int, ...], drop_factor: float) -> Callable[[tf.Tensor], tf.Tensor]:
    def factor(step: tf.Tensor) -> tf.Tensor:
        num_drops = tf.reduce_sum(tf.cast(step >= tf.constant(drop_steps, tf.float32), tf.float32))
        return drop_factor**-num_drops

    return factor


def _ascending(drop_steps: tuple[int, ...]) -> tuple[int, ...]:
    if not drop_steps or list(drop_steps) != sorted(set(drop_steps)):
        given = ",".join(map(str, drop_steps)) or "empty"
        raise InputError(f"drop_steps is {given}, but must be ascending steps, as 30000,60000, for the schedule steps")
    return drop_steps
