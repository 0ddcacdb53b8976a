"""The factor that keeps float16 gradients above the smallest number that float16 can hold."""

import tensorflow as tf

from training.workers.replicas import update_copies

_LARGEST = 2.0**24


class LossScale(tf.Module):
    """Halves the scale at each gradient that is not finite, and doubles it after a row of finite ones.

    Its two variables go into a checkpoint. The scale is a power of 2, so scaling changes no digit of a gradient, and
    stays between 1 and 2**24: a network that overflows at a scale of 1 is not float16's fault.

    Args:
        initial: The first scale.
        growth_steps: Finite steps in a row after which it doubles.

    Reference:
        Micikevicius et al., "Mixed Precision Training", 2018, section 3.2.
    """

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2_000) -> None:
        super().__init__()
        self.value = tf.Variable(initial, trainable=False, name="loss_scale")
        self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="finite_steps")
        self._growth_steps = growth_steps

    def update(self, finite: tf.Tensor) -> None:
        """Takes note of a step, inside a replica: whether its gradient was finite, the same on all replicas."""
        row = tf.where(finite, self.finite_steps + 1, tf.zeros_like(self.finite_steps))
        grown = row == self._growth_steps
        scale = tf.where(finite, tf.where(grown, 2 * self.value, self.value), self.value / 2)
        update_copies([self.value], _assign, [tf.clip_by_value(scale, 1.0, _LARGEST)])
        update_copies([self.finite_steps], _assign, [tf.where(grown, tf.zeros_like(row), row)])


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(value)
