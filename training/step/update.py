"""The update of the weights by any Keras optimizer, exact over replicas."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from keras_prelu.walk.fans import fans
from training.config import Config
from training.distribute.strategy import sum_over_replicas, update_copies
from training.step.schedules import Plateau, make_schedule

_LARGEST_SCALE = 2.0**24
OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "adamw": keras.optimizers.AdamW,
    "lion": keras.optimizers.Lion,
    "muon": keras.optimizers.Muon,
    "lamb": keras.optimizers.Lamb,
}


class LossScale(tf.Module):
    """The factor that keeps float16 gradients above the smallest number that float16 can hold.

    It halves at each gradient that is not finite, and doubles after a row of finite ones. Its two variables go into a
    checkpoint. The scale is a power of 2, so scaling changes no digit of a gradient, and stays between 1 and 2**24: a
    network that overflows at a scale of 1 is not float16's fault.

    Args:
        initial: The first scale.
        growth_steps: The number of finite steps in a row after which it doubles.

    Reference:
        Micikevicius et al., "Mixed Precision Training", 2018, section 3.2.
    """

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2_000) -> None:
        super().__init__()
        self.value = tf.Variable(initial, trainable=False, name="loss_scale")
        self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="finite_steps")
        self._growth_steps = growth_steps

    def update(self, finite: tf.Tensor) -> None:
        """Moves the scale after a step, inside a replica: whether its gradient was finite, the same on all replicas."""
        row = tf.where(finite, self.finite_steps + 1, tf.zeros_like(self.finite_steps))
        grown = row == self._growth_steps
        scale = tf.where(finite, tf.where(grown, 2 * self.value, self.value), self.value / 2)
        update_copies([self.value], assign, [tf.clip_by_value(scale, 1.0, _LARGEST_SCALE)])
        update_copies([self.finite_steps], assign, [tf.where(grown, tf.zeros_like(row), row)])


class Updater:
    """Moves weights by a Keras optimizer, with gradients that are summed over the replicas first.

    Left to themselves, Keras's optimizers clip each replica's gradient before they sum, so that two replicas clip
    otherwise than one, and SGD's `weight_decay` bypasses the velocity: with a momentum of 0.9 it decays a tenth as
    fast as Caffe's and PyTorch's. Here the sum is clipped, and the decay is

        gradient + decay * weight              for SGD, after clipping, as in Caffe
        weight - rate * decay * weight         before the update, for all others, as in Keras

    Args:
        optimizer: Built for the variables, without clipping, weight decay or averaging of its own.
        decays: The weight decay of those variables that have one, by `id`.
        rate_factors: What the learning rate of a variable is multiplied by, by `id`; 1 where there is none.
        clip_norm: The largest norm of the loss's gradient with respect to all weights; 0 for any.
        loss_scale: What `scale_loss` multiplies by and `apply` divides by again. With one, a step whose gradient is
            not finite moves nothing, but counts.
        plateau: What the learning rate waits for.
        xla: Whether each variable's update is compiled to one kernel.

    Reference:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 5, for the
        decay of SGD. Caffe, too, clips before it adds the decay.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        *,
        decays: Mapping[int, float] | None = None,
        rate_factors: Mapping[int, float] | None = None,
        clip_norm: float = 0.0,
        loss_scale: LossScale | None = None,
        plateau: Plateau | None = None,
        xla: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.plateau = plateau
        self._decays = decays or {}
        self._rate_factors = rate_factors or {}
        self._clip_norm = clip_norm
        self._decays_gradient = isinstance(optimizer, keras.optimizers.SGD)
        self._xla = xla

    @property
    def variables(self) -> list[keras.Variable | tf.Variable]:
        """All that a checkpoint is to hold: those of the loss scale and of the plateau as well."""
        others = [part.variables for part in (self.loss_scale, self.plateau) if part is not None]
        return list(self.optimizer.variables) + [variable for variables in others for variable in variables]

    @property
    def steps(self) -> tf.Tensor:
        """The number of steps taken, int64."""
        return tf.cast(tf.convert_to_tensor(self.optimizer.iterations.value), tf.int64)

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss to be differentiated."""
        return loss if self.loss_scale is None else loss * self.loss_scale.value

    def state(self) -> dict[str, tf.Tensor]:
        """The `learning_rate` of the next step and, where there is one, its `loss_scale`."""
        state = {"learning_rate": tf.convert_to_tensor(self.optimizer.learning_rate)}
        if self.loss_scale is not None:
            state["loss_scale"] = tf.convert_to_tensor(self.loss_scale.value)
        return state

    def apply(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> tf.Tensor:
        """Sums the replicas' gradients and moves the weights; to be called inside a replica.

        Args:
            gradients: This replica's part of the scaled loss's gradient.
            variables: Of those that the optimizer was built with, the ones to move.

        Returns:
            The norm of the sum over replicas, without the loss scale and before clipping.
        """
        summed = sum_over_replicas(list(gradients))
        if self.loss_scale is not None:
            summed = [gradient / self.loss_scale.value for gradient in summed]
        norm = tf.linalg.global_norm([tf.cast(gradient, tf.float32) for gradient in summed])
        if self._clip_norm:
            share = self._clip_norm / tf.maximum(norm, self._clip_norm)
            summed = [gradient * tf.cast(share, gradient.dtype) for gradient in summed]
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        finite = tf.math.is_finite(norm)
        rates = [rate * self._rate_factors.get(id(variable), 1.0) for variable in variables]
        decays = [self._decays.get(id(variable), 0.0) for variable in variables]
        update_copies(variables, self._move, summed, rates, decays, [finite] * len(summed))
        update_copies([self.optimizer.iterations], _increment)
        if self.loss_scale is not None:
            self.loss_scale.update(finite)
        return norm

    def _move(self, weight: tf.Variable, *arguments: Any) -> None:
        move = partial(self._move_one, weight)
        # A compiled function for each weight: the optimizer finds a weight's momentum while it is traced, and
        # TensorFlow would take one trace for all weights of a shape.
        (tf.function(move, jit_compile=True, autograph=False) if self._xla else move)(*arguments)

    def _move_one(
        self, weight: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor, decay: float, finite: tf.Tensor
    ) -> None:
        def move() -> tf.Tensor:
            decayed = gradient
            if decay and self._decays_gradient:
                decayed += decay * weight
            elif decay:
                weight.assign_sub(tf.cast(rate, weight.dtype) * decay * weight)
            self.optimizer.update_step(decayed, weight, rate)
            return tf.constant(True)

        if self.loss_scale is None:
            move()
        else:
            tf.cond(finite, move, lambda: tf.constant(False))


def make_updater(config: Config, model: keras.Model) -> Updater:
    """Builds the optimizer that a config describes, for a built model; to be made under the strategy's scope.

    Weight decay is for kernels alone: no slope, no bias, no scale of a normalization. With `layer_decay` the learning
    rate of the last layer with a kernel is the config's; it falls by that factor from each such layer to the one
    before it. Other variables have the rate of the kernel before them.

    Raises:
        InputError: The schedule does not fit the run.
    """
    plateau = Plateau(config.patience, config.drop_factor, config.max_drops) if config.schedule == "plateau" else None
    optimizer = _optimizer(config, make_schedule(config, plateau))
    optimizer.build(model.trainable_variables)
    return Updater(
        optimizer,
        decays={id(row.kernel): config.weight_decay for row in fans(model)},
        rate_factors=_rate_factors(model, config.layer_decay) if config.layer_decay != 1 else None,
        clip_norm=config.clip_norm,
        loss_scale=LossScale() if config.precision == "mixed_float16" else None,
        plateau=plateau,
        xla=config.xla,
    )


def _optimizer(config: Config, rate: Any) -> keras.optimizers.Optimizer:
    make, name = OPTIMIZERS[config.optimizer], config.optimizer  # Keras would count its optimizers in their names
    if config.optimizer == "sgd":
        return make(rate, momentum=config.momentum, nesterov=config.nesterov, name=name)
    if config.optimizer == "muon":
        return make(rate, momentum=config.momentum, weight_decay=0.0, adam_weight_decay=0.0, name=name)
    return make(rate, weight_decay=0.0, name=name)


def _rate_factors(model: keras.Model, layer_decay: float) -> dict[int, float]:
    kernels = {id(row.kernel) for row in fans(model)}
    depths: dict[int, int] = {}
    depth = 0
    for layer in model.layers:
        if any(id(variable) in kernels for variable in layer.variables):
            depth += 1
        depths |= {id(variable): depth for variable in layer.trainable_variables}
    return {key: layer_decay ** (depth - each) for key, each in depths.items()}


def assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Assigns, as `update_copies` calls it."""
    variable.assign(value)


def _increment(variable: tf.Variable) -> None:
    variable.assign_add(1)
