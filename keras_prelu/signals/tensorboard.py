"""Signals and slopes for TensorBoard; needs TensorFlow, on any backend."""

import math

import keras
import tensorflow as tf

from keras_prelu.layer.slopes import slope_layers, slope_values
from keras_prelu.signals.report import SignalReport
from keras_prelu.walk.graph import layer_paths


def write_signals(writer: tf.summary.SummaryWriter, report: SignalReport, step: int) -> None:
    """Writes a report as scalars `signals/<quantity>/<layer>`.

    Args:
        writer: As from `tf.summary.create_file_writer`.
        report: The result of `measure_gains`.
        step: The training step.
    """
    quantities = ("forward_mean_square", "backward_mean_square", "gradient_mean_square", "decay_ratio", "dead")
    with writer.as_default(step):
        for row in report.rows:
            for quantity in quantities:
                value = getattr(row, quantity)
                if not math.isnan(value):
                    tf.summary.scalar(f"signals/{quantity}/{row.name}", value)
    writer.flush()


def write_slopes(writer: tf.summary.SummaryWriter, model: keras.Model, step: int) -> None:
    """Writes the slopes of each rectifier as a histogram `slopes/<rectifier>`.

    Args:
        writer: As from `tf.summary.create_file_writer`.
        model: A built model.
        step: The training step.

    Raises:
        ValueError: A model that is not built.
    """
    paths = layer_paths(model)
    with writer.as_default(step):
        for layer in slope_layers(model):
            tf.summary.histogram(f"slopes/{paths.get(id(layer), layer.path)}", slope_values(layer))
    writer.flush()
