"""Gradient descent with momentum as the paper's Caffe has it, exact over replicas."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_prelu.walk.fans import fans
from training.config import Config
from training.optimization.loss_scale import LossScale
from training.optimization.schedules import Plateau, make_schedule
from training.workers.replicas import sum_over_replicas, update_copies


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
