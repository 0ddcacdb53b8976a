"""What `fit --dry_run` prints: the resolved config, the run's length, its devices and the memory it takes."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf
from tabulate import tabulate

from keras_prelu.walk.graph import trace
from training.config import Config
from training.data.datasets import open_images_of
from training.distribute.strategy import make_strategy
from training.experiment import Experiment, build_experiment

_VIEWS = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape)  # their outputs take no memory


def describe_run(config: Config) -> str:
    """Builds what a config describes on this machine's devices, trains nothing, and describes it.

    Raises:
        InputError: As `fit` raises it.
    """
    strategy = make_strategy(config.cpu_devices, config.devices)
    experiment = build_experiment(config, strategy, open_images_of(config))
    length, memory = _length(experiment), _memory(experiment)
    return (
        f"{_fields(experiment.config)}\n* differs from the field's default\n\n{_rows(length)}\n\n"
        f"estimated memory of each device, if the output of each layer is kept for the backward pass:\n{_rows(memory)}"
    )


def _fields(config: Config) -> str:
    return _rows(
        ("*" if getattr(config, field.name) != field.default else "", field.name, _text(getattr(config, field.name)))
        for field in dataclasses.fields(config)
    )


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _length(experiment: Experiment) -> list[tuple[str, str]]:
    config, images, per_epoch = experiment.config, experiment.images, experiment.steps_per_epoch
    devices = experiment.strategy.extended.worker_devices
    trainable = sum(math.prod(weight.shape) for weight in experiment.model.trainable_variables)
    return [
        ("network", experiment.model.name),
        ("parameters", f"{experiment.model.count_params():,}, of which {trainable:,} are trained"),
        ("images per epoch", f"{images.num_examples(config.train_split):,} of {len(images.labels)} classes"),
        ("images per evaluation", f"{images.num_examples(config.validation_split):,}"),
        ("steps per epoch", f"{per_epoch:,} of {config.batch_size} images"),
        ("steps", f"{config.steps:,}, {config.steps / per_epoch:.4g} epochs"),
        ("devices", ", ".join(device.rpartition("device:")[2] for device in devices)),
    ]


def _memory(experiment: Experiment) -> list[tuple[str, str]]:
    model, config = experiment.model, experiment.config
    images = math.ceil(
        config.batch_size / experiment.strategy.num_replicas_in_sync / config.gradient_accumulation_steps
    )
    parts = {
        "weights": _bytes(model.variables),
        "gradients": _bytes(model.trainable_variables),
        "optimizer": _bytes(experiment.updater.variables),
        "moving average": _bytes(experiment.average.variables) if experiment.average else 0,
        f"activations of {images} images": _activations(model, images),
    }
    known = [size for size in parts.values() if size is not None]
    rows = [(name, "unknown" if size is None else _size(size)) for name, size in parts.items()]
    return [*rows, ("together", ("" if len(known) == len(parts) else "more than ") + _size(sum(known)))]


def _bytes(variables: Iterable[Any]) -> int:
    return sum(math.prod(each.shape) * _width(each.dtype) for each in variables)


def _activations(model: keras.Model, images: int) -> int | None:
    """Bytes of all layers' outputs; None where the model has no graph, or takes images of any size."""
    try:
        calls = [call for call in trace(model).calls if not isinstance(call.operation, _VIEWS)]
    except ValueError:
        return None
    shapes: list[tuple[Any, ...]] = [call.output_shape[1:] for call in calls]
    if any(None in shape for shape in shapes):
        return None
    widths = [_width(getattr(call.operation, "compute_dtype", "float32")) for call in calls]
    return images * sum(math.prod(shape) * width for shape, width in zip(shapes, widths, strict=True))


def _width(dtype: Any) -> int:
    """Bytes of a number."""
    return int(tf.as_dtype(keras.backend.standardize_dtype(dtype)).size)


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _rows(rows: Iterable[tuple[str, ...]]) -> str:
    return tabulate(rows, tablefmt="plain", disable_numparse=True)
