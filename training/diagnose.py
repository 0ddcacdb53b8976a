"""Finds out where a run ceased to be finite: the step, the batch, the first layer."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_prelu.keras_internals import replay
from training.batch import Batch
from training.experiment import Experiment
from training.step.steps import Metrics


def not_finite(metrics: Metrics) -> str:
    """What of a step's metrics, or of several steps', ends a run: `loss`, `gradient_norm` or nothing.

    A gradient that is not finite is no fault while a loss scale can still fall, and moves nothing then.
    """
    if not np.isfinite(metrics["loss"]).all():
        return "loss"
    at_fault = np.asarray(metrics.get("loss_scale", 1.0)) <= 1
    return "" if np.isfinite(metrics["gradient_norm"])[at_fault].all() else "gradient_norm"


def find_not_finite(experiment: Experiment, step: int, last: int) -> str:
    """Repeats a run from a checkpoint, step by step, until it is no longer finite, and describes what it finds.

    A run can be repeated exactly, so that none of this costs anything while all goes well.

    Args:
        experiment: As it was at the checkpoint.
        step: The checkpoint's step, or 0 before the first.
        last: The step by which the loss, the gradient or the weights were found not to be finite.

    Returns:
        A line with the step, the batch and the layer.
    """
    experiment.freeze(step)
    experiment.load_mean(step)
    train_step = experiment.train_step()
    evaluate = experiment.evaluation(experiment.config.validation_split)
    for done, batch in enumerate(experiment.train_batches(step), start=step):
        weights = experiment.model.get_weights()
        metrics = train_step(batch)
        name = not_finite(metrics)
        if name:
            experiment.model.set_weights(weights)
            place, layer = _place(experiment, done), _layer(experiment, batch, name)
            return f"the {name} is {float(metrics[name])} at step {done + 1}, {place}: {layer}"
        if done >= last:  # the loss of one more step shows weights that are not finite after the last
            return f"the loss was not finite at step {last}, but is when the steps since {step} are repeated"
        if experiment.updater.plateau and (done + 1) % experiment.config.evaluate_every == 0:
            experiment.observe(evaluate())  # what comes next depends on it
        if done + 1 == experiment.config.unfreeze_step:
            experiment.freeze(done + 1)
            train_step = experiment.train_step()
    raise AssertionError("training batches never end")


def first_layer_not_finite(model: keras.Model, images: tf.Tensor) -> tuple[str, np.ndarray] | None:
    """The first layer, in the order in which they run, whose output is not finite, and for which of the images.

    Args:
        model: A functional model.
        images: What it is to run on.

    Returns:
        The layer's name and a truth value an image; None where all outputs are finite.
    """
    names: list[str] = []
    finite: list[keras.KerasTensor] = []

    def call(layer: keras.Layer, *inputs: Any, **arguments: Any) -> Any:
        output = layer(*inputs, **arguments)
        names.append(layer.name)
        finite.append(_finite(output))
        return output

    # The same layers, called again: `layer.output` is not this model's where the layer stood in another one before.
    inputs = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    replay(model, inputs, call)
    for name, images_finite in zip(names, keras.Model(inputs, finite)(images, training=True), strict=True):
        if not np.all(images_finite):
            return name, ~np.asarray(images_finite)
    return None


def _finite(output: keras.KerasTensor) -> keras.KerasTensor:
    """A truth value an image; the outputs themselves need not stay in memory together."""
    return keras.ops.all(keras.ops.isfinite(output), axis=tuple(range(1, len(output.shape))))


def _layer(experiment: Experiment, batch: Batch, name: str) -> str:
    spoilt = [each.path for each in experiment.model.trainable_variables if not np.isfinite(each.numpy()).all()]
    if spoilt:
        return f"the weights of {spoilt[0]} were not finite any more after the step before"
    for share in experiment.strategy.experimental_local_results(batch["images"]):
        found = first_layer_not_finite(experiment.model, share)
        if found:
            name, images = found
            return f"{name} is the first layer whose output is not finite, for {images.sum()} of {len(images)} images"
    return f"every layer's output is finite, and only the {name} is not"


def _place(experiment: Experiment, step: int) -> str:
    epoch, index = divmod(step, experiment.steps_per_epoch)
    return f"batch {index + 1} of {experiment.steps_per_epoch} in epoch {epoch + 1}"
