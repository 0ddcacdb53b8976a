"""Gradients of what passes each layer, on every backend of Keras."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_prelu.initialization.fans import layer_kernels
from keras_prelu.signals.probes import Moments, Probe, attached, state_kept, to_array


def run_backward(
    model: keras.Model, probes: Sequence[Probe], batch: Any, objective: Callable[[Any], Any], training: bool
) -> None:
    """Takes the gradient of an objective back through the model and fills in the probes' other half.

    Each backend of Keras differentiates in a way of its own; what they share is the step of training. So one is taken,
    by an optimizer that keeps the gradients and updates nothing: the model stays as it is.

    Args:
        model: The model that `run_forward` ran.
        probes: What that returned.
        batch: The batch that it ran.
        objective: A function of the model's outputs to a scalar.
        training: Whether the layers run as in training.
    """
    step = _Step(model, len(probes), objective, training)
    recorder = _GradientRecorder()
    recorder.build(step.trainable_variables)
    step.compile(optimizer=recorder, run_eagerly=True, jit_compile=False)
    taps = {id(probe.layer): tap for probe, tap in zip(probes, step.taps, strict=True)}

    def see_preactivation(layer: keras.Layer, values: Any) -> Any:
        return _tapped(values, ops.convert_to_tensor(taps[id(layer)])) if id(layer) in taps else values

    with state_kept(model), attached(model, see_preactivation):
        step.train_on_batch(batch)
    gradients = recorder.gradients()
    for probe in probes:
        total, squares = gradients[id(taps[id(probe.layer)])].tolist()
        probe.backward = Moments(probe.forward.count, total, squares)
        for kernel in layer_kernels(probe.layer):
            probe.kernels.add(to_array(kernel))
            if id(kernel) in gradients:
                probe.gradients.add(gradients[id(kernel)])


class _Step(keras.Model):
    """A step of training of a model, with a variable for each probe."""

    def __init__(self, model: keras.Model, num_probes: int, objective: Callable[[Any], Any], training: bool) -> None:
        super().__init__(name="probed", autocast=False)  # the batch reaches the model as it is
        self.probed = model
        self.objective = objective
        self.as_in_training = training
        # Without autocast=False a layer of half precision would sum up squares in half precision.
        self.taps = [
            self.add_weight(shape=(2,), initializer="zeros", autocast=False, dtype="float32", name=f"tap{index}")
            for index in range(num_probes)
        ]
        self.built = True  # or JAX runs it once more, without values

    def call(self, inputs: Any) -> Any:
        return self.probed(inputs, training=self.as_in_training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return self.objective(y_pred)


class _GradientRecorder(keras.optimizers.Optimizer):
    """Keeps the gradients and leaves the variables alone; the base class would apply their constraints."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.0)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        self._watched = list(variables)
        self._kept = [self.add_variable_from_reference(variable, name="gradient") for variable in variables]

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        for kept, gradient in zip(self._kept, grads, strict=True):
            if gradient is not None:  # None, where nothing leads from the variable to the objective: it stays zero
                kept.assign(ops.convert_to_tensor(gradient))

    def gradients(self) -> dict[int, np.ndarray]:
        """The gradients by the id of their variable."""
        return {id(variable): to_array(kept) for variable, kept in zip(self._watched, self._kept, strict=True)}


@ops.custom_gradient
def _tapped(values: Any, tap: Any) -> Any:
    """Passes values through; what arrives as the tap's "gradient" is the sum and the sum of squares of theirs."""

    def gradient(*args: Any, upstream: Any = None) -> tuple[Any, Any]:
        if upstream is None:  # TensorFlow and JAX pass it by position, PyTorch by name
            (upstream,) = args
        single = ops.cast(upstream, "float32")
        return upstream, ops.stack([ops.sum(single), ops.sum(ops.square(single))])

    return ops.copy(values), gradient
