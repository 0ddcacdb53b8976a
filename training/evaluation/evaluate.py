"""`python -m training evaluate`: the errors of a run on a whole split, or of several runs together."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_prelu.tables import text_table
from training.classifier import Classifier, load_classifier
from training.data.datasets import open_images_of
from training.distribute.strategy import make_strategy
from training.errors import InputError
from training.evaluation.metrics import Published, compute_metrics, published_errors
from training.evaluation.views import Protocol, Scored, score
from training.run.folder import Run

_WORST_CLASSES = 10


def evaluate_runs(
    runs: Sequence[Run], protocol: Protocol, *, checkpoint: str = "last", data_dir: str = "", devices: str = ""
) -> dict[str, Any]:
    """Evaluates the mean scores of one or several runs' networks.

    Args:
        runs: Trained on the same classes.
        protocol: The images, and the way in which the networks see them.
        checkpoint: `last` or `best`.
        data_dir: The folder of the data; empty for where it was in training.
        devices: As `GPU:0,GPU:2`; empty for all GPUs, or one CPU device.

    Returns:
        What `json.dumps` can hold: metrics of all images, of each class, and what was evaluated.

    Raises:
        InputError: A folder without such a checkpoint, runs of different classes, or a protocol that does not fit.
    """
    with make_strategy(devices=devices).scope():
        classifiers = [load_classifier(run, checkpoint) for run in runs]
        scored = [_score(each, protocol, data_dir) for each in classifiers]
    first = classifiers[0]
    for run, classifier, other in zip(runs, classifiers, scored, strict=True):
        if classifier.labels != first.labels or not np.array_equal(other.labels, scored[0].labels):
            raise InputError(
                f"{run.folder} and {runs[0].folder} were not trained on the same set: only networks for the same "
                "images and classes can be averaged"
            )
    metrics = compute_metrics(np.mean([each.scores for each in scored], axis=0), scored[0].labels)
    return {
        "runs": [str(run.folder) for run in runs],
        "checkpoint": checkpoint,
        "steps": [each.step for each in classifiers],
        "dataset": first.config.dataset,
        "split": protocol.split or first.config.test_split,
        "views": protocol.for_shape(first.image_shape).name,
        "images": metrics.images,
        "unreadable": scored[0].num_unreadable,
        "top1_error": metrics.top1_error,
        "top5_error": metrics.top5_error,
        "loss": metrics.loss,
        **metrics.macro._asdict(),
        "calibration_error": metrics.calibration_error,
        "calibration_bins": metrics.bins,
        "classes": {
            first.labels[number]: {"images": int(metrics.confusion[number].sum()), **each._asdict()}
            for number, each in metrics.classes.items()
        },
    }


def _score(classifier: Classifier, protocol: Protocol, data_dir: str) -> Scored:
    return score(classifier, open_images_of(classifier.config, data_dir), protocol)


def describe(result: dict[str, Any]) -> str:
    """An evaluation as text for a person."""
    networks = f", {len(result['runs'])} networks" if len(result["runs"]) > 1 else ""
    unreadable = f", {result['unreadable']} more cannot be read" if result["unreadable"] else ""
    top5 = result["top5_error"]
    lines = [
        f"{result['dataset']} {result['split']}: {result['images']:,} images, {result['views']}{networks}{unreadable}",
        f"top-1 error {result['top1_error']:.2%}" + ("" if top5 is None else f", top-5 error {top5:.2%}"),
        f"loss {result['loss']:.4f}, calibration error {result['calibration_error']:.2%}",
    ]
    classes = sorted(result["classes"].items(), key=lambda item: item[1]["f1"])[:_WORST_CLASSES]
    more = f" (the worst of {len(result['classes'])})" if len(result["classes"]) > len(classes) else ""
    rows = [(name, each["images"], *_percent(each)) for name, each in (("all, mean", result), *classes)]
    lines += ["", text_table([f"class{more}", "images", "precision, %", "recall, %", "F1, %"], rows)]
    published = published_errors(result["dataset"])
    if published:
        ours = Published("this", 100 * result["top1_error"], None if top5 is None else 100 * top5, "")
        every = (ours, *published)
        table = [(each.network, _hundredths(each.top1), _hundredths(each.top5), each.source) for each in every]
        lines += ["", text_table(["network", "top-1, %", "top-5, %", "source"], table)]
    return "\n".join(lines)


def write(result: dict[str, Any], path: pathlib.Path) -> None:
    """Writes an evaluation as JSON.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name another --json") from None


def _percent(metrics: dict[str, Any]) -> tuple[float, ...]:
    return tuple(100 * metrics[name] for name in ("precision", "recall", "f1"))


def _hundredths(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.2f}"
