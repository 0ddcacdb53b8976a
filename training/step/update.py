"""The optimizer's update, exact over replicas."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_prelu.walk.fans import fans
from training.config import Config
from training.distribute.strategy import sum_over_replicas, update_copies
from training.step.schedules import Plateau, make_schedule

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


class MomentumSGD(keras.optimizers.Optimizer):
    """Gradient descent with momentum over gradients that are summed over the replicas first.

        velocity = momentum * velocity - rate * (clipped gradient + l2 * weight)
        weight = weight + velocity

    Keras's optimizers clip each replica's gradient before they sum, so that two replicas clip otherwise than one; and
    their `weight_decay` bypasses the velocity: with a momentum of 0.9 it decays a tenth as fast.

    Args:
        learning_rate: A number, or a Keras schedule of the step.
        momentum: Share of the velocity that stays from step to step.
        l2: Times a weight, what is added to its gradient. (Twice the factor of `keras.regularizers.L2`.)
        decayed: The variables that get the L2; None for all.
        clip_norm: Largest norm of the loss's gradient with respect to all weights; 0 for any.
        loss_scale: What `scale_loss` multiplies by and `apply` divides by again. With one, a step whose gradient is
            not finite moves nothing, but counts.

    Reference:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 5. Caffe,
        too, clips before it adds the decay.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        momentum: float = 0.9,
        l2: float = 0.0,
        decayed: Sequence[keras.Variable] | None = None,
        clip_norm: float = 0.0,
        loss_scale: LossScale | None = None,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name="momentum_sgd")
        self.momentum = momentum
        self.l2 = l2
        self.decayed = decayed
        self.clip_norm = clip_norm
        self.loss_scale = loss_scale
        self.plateau: Plateau | None = None

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes a velocity for each variable."""
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        decayed = {id(variable) for variable in (variables if self.decayed is None else self.decayed)}
        self._decays = [self.l2 if id(variable) in decayed else 0.0 for variable in variables]

    @property
    def variables(self) -> list[keras.Variable | tf.Variable]:
        """All that a checkpoint is to hold: those of the loss scale and of the plateau as well."""
        others = [part.variables for part in (self.loss_scale, self.plateau) if part is not None]
        return super().variables + [variable for variables in others for variable in variables]

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss as it is to be differentiated."""
        return loss if self.loss_scale is None else loss * self.loss_scale.value

    def state(self) -> dict[str, tf.Tensor]:
        """The `learning_rate` of the next step and, where there is one, its `loss_scale`."""
        state = {"learning_rate": tf.convert_to_tensor(self.learning_rate)}
        if self.loss_scale is not None:
            state["loss_scale"] = tf.convert_to_tensor(self.loss_scale.value)
        return state

    def apply(self, grads: list[tf.Tensor], trainable_variables: Sequence[keras.Variable]) -> tf.Tensor:
        """Sums the replicas' gradients and moves the weights; to be called inside a replica.

        Args:
            grads: This replica's part of the scaled loss's gradient.
            trainable_variables: Those the optimizer was built with.

        Returns:
            The norm of the sum over replicas, without the loss scale and before clipping.
        """
        gradients = sum_over_replicas(list(grads))
        if self.loss_scale is not None:
            gradients = [gradient / self.loss_scale.value for gradient in gradients]
        norm = tf.linalg.global_norm(gradients)
        if self.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm, use_norm=norm)
        gradients = [
            gradient + decay * variable.value if decay else gradient
            for gradient, variable, decay in zip(gradients, trainable_variables, self._decays, strict=True)
        ]
        self._move(gradients, trainable_variables, tf.math.is_finite(norm))
        return norm

    def _move(self, gradients: list[tf.Tensor], variables: Sequence[keras.Variable], finite: tf.Tensor) -> None:
        rate = tf.convert_to_tensor(self.learning_rate)
        moves = finite if self.loss_scale is not None else tf.constant(True)
        num = len(gradients)
        update_copies(variables, self._move_one, self.velocities, gradients, [rate] * num, [moves] * num)
        update_copies([self.iterations], _increment)
        if self.loss_scale is not None:
            self.loss_scale.update(finite)

    def _move_one(
        self, weight: tf.Variable, velocity: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor, moves: tf.Tensor
    ) -> None:
        moved = self.momentum * velocity - rate * gradient
        velocity.assign(tf.where(moves, moved, velocity))
        weight.assign_add(tf.where(moves, moved, 0.0))


def make_optimizer(config: Config, model: keras.Model) -> MomentumSGD:
    """Builds the optimizer that a config describes, for a built model, with L2 on its kernels alone.

    Its `plateau` is None, or what is to be told each validation error.

    Raises:
        InputError: The schedule does not fit the run.
    """
    plateau = Plateau(config.patience, config.drop_factor, config.max_drops) if config.schedule == "plateau" else None
    optimizer = MomentumSGD(
        make_schedule(config, plateau),
        config.momentum,
        config.weight_decay,
        [row.kernel for row in fans(model)],  # no slope, no bias, no scale of a normalization
        config.clip_norm,
        LossScale() if config.precision == "mixed_float16" else None,
    )
    optimizer.plateau = plateau
    optimizer.build(model.trainable_variables)
    return optimizer


def _increment(variable: tf.Variable) -> None:
    variable.assign_add(1)
