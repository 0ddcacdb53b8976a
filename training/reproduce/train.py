"""Trains a plain network for a trial, by the trainer itself."""

import dataclasses
import pathlib
import statistics
from typing import Any

from training.config import Config
from training.environment import start_tensorflow
from training.run.folder import Run, write_whole

_KEPT = ("event", "step", "epoch", "loss", "accuracy", "gradient_norm")  # of a line of metrics.jsonl


def train(settings: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Trains a plain network, or resumes from the folder's newest checkpoint.

    Args:
        settings: `network`, the arguments of `plain_network`; `start`, those of `start`; `config`, fields of a Config.
        folder: The run's folder. Its network begins as the file `start.keras`.

    Returns:
        `events`, the curves of the run's `metrics.jsonl`; `slopes`, a row per rectifier with learnt ones;
        `first_signals` and `last_signals`, the signals and gradients by layer before and after training, and
        `start_slope`, the mean of the learnt slopes before it.

    Raises:
        TrainingError: The loss became infinite or not a number.
    """
    start_tensorflow(True)  # bfloat16 needs oneDNN's kernels
    import keras

    from keras_prelu import slope_table
    from training.train import fit

    config = Config(**settings["config"], network=str(folder / "start.keras"))
    batch = first_test_batch(config)
    if not (folder / "start.keras").exists():
        _write_start(settings, config, batch, folder)
    untrained = keras.saving.load_model(folder / "start.keras")
    first = {"first_signals": _signals(untrained, batch), "start_slope": _mean_slope(untrained)}
    fit(config, folder)
    trained = keras.saving.load_model(Run(folder).model)
    return {
        "events": [{name: each[name] for name in _KEPT if name in each} for each in Run(folder).events()],
        "slopes": [dataclasses.asdict(row) for row in slope_table(trained).rows],
        **first,
        "last_signals": _signals(trained, batch),
    }


def _write_start(settings: dict[str, Any], config: Config, batch: dict[str, Any], folder: pathlib.Path) -> None:
    import keras

    from training.reproduce.network import plain_network, start

    shape, num_classes = tuple(batch["images"].shape[1:]), batch["num_classes"]
    keras.config.set_dtype_policy(config.precision)
    network = plain_network(shape, num_classes, **settings["network"])
    start(network, **settings["start"], seed=config.seed)
    write_whole(folder / "start.keras", network.save)
    keras.config.set_dtype_policy("float32")


def first_test_batch(config: Config) -> dict[str, Any]:
    """The `images` and `labels` of the first test batch, and `num_classes`."""
    from training.data.datasets import open_images_of
    from training.data.pipeline import evaluation_batches

    images = open_images_of(config)
    batch = next(iter(evaluation_batches(images, config, images.input_shape(config.image_size), 1)))
    return {"images": batch["images"], "labels": batch["labels"], "num_classes": len(images.labels)}


def _mean_slope(network: Any) -> float | None:
    from keras_prelu import slope_table

    means = [row.mean for row in slope_table(network).rows]
    return statistics.fmean(means) if means else None


def _signals(network: Any, batch: dict[str, Any]) -> list[dict[str, Any]]:
    import keras

    from keras_prelu import measure_gains

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = measure_gains(network, batch["images"], batch["labels"], loss=loss)
    names = ("name", "forward_mean_square", "backward_mean_square", "gradient_mean_square")
    return [{name: getattr(row, name) for name in names} for row in report.rows]
