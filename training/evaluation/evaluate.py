"""`python -m training evaluate`: the errors of a run on a whole split, or of several runs together."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_prelu.tables import text_table
from training.errors import InputError
from training.evaluation.protocols import Protocol, Scored, score_run
from training.evaluation.published import Published, published_errors
from training.evaluation.scores import judge
from training.run.folder import Run

_WORST_CLASSES = 10


def evaluate_runs(runs: Sequence[Run], protocol: Protocol) -> dict[str, Any]:
    """Judges the mean score of one or several runs' networks.

    Args:
        runs: Trained on the same classes.
        protocol: How the images are shown.

    Returns:
        What `json.dumps` can hold: `top1_error`, `top5_error` (None where there are no more than five classes), `loss`,
        `calibration_error`, `classes` with each one's `images` and `error`, and what was judged.

    Raises:
        InputError: A folder without a saved run, runs of different classes, or a protocol that does not fit.
    """
    scored = [score_run(run, protocol) for run in runs]
    for run, other in zip(runs[1:], scored[1:], strict=True):
        _check_same_images(runs[0], scored[0], run, other)
    config, _, image_shape = runs[0].read()
    judgement = judge(np.mean([each.scores for each in scored], axis=0), scored[0].labels)
    counts, errors = judgement.confusion.sum(axis=1), judgement.class_errors()
    return {
        "runs": [str(run.folder) for run in runs],
        "dataset": config.dataset,
        "split": protocol.split or config.test_split,
        "views": protocol.for_shape(image_shape).name,
        "images": judgement.images,
        "unreadable": scored[0].num_unreadable,
        "top1_error": judgement.top1_error,
        "top5_error": None if math.isnan(judgement.top5_error) else judgement.top5_error,
        "loss": judgement.loss,
        "calibration_error": judgement.calibration_error,
        "calibration_bins": judgement.bins,
        "classes": {
            name: {"images": int(count), "error": float(error) if count else None}
            for name, count, error in zip(scored[0].names, counts, errors, strict=True)
        },
    }


def describe(result: dict[str, Any]) -> str:
    """An evaluation as a person reads it."""
    networks = f", {len(result['runs'])} networks" if len(result["runs"]) > 1 else ""
    unreadable = f", {result['unreadable']} more cannot be read" if result["unreadable"] else ""
    lines = [
        f"{result['dataset']} {result['split']}: {result['images']:,} images, {result['views']}{networks}{unreadable}",
        f"top-1 error {result['top1_error']:.2%}",
    ]
    if result["top5_error"] is not None:
        lines.append(f"top-5 error {result['top5_error']:.2%}")
    lines.append(f"loss {result['loss']:.4f}, calibration error {result['calibration_error']:.2%}")
    rows = [(name, each["images"], each["error"]) for name, each in result["classes"].items() if each["images"]]
    rows.sort(key=lambda row: -row[2])
    shown = rows[:_WORST_CLASSES]
    more = f" (the worst of {len(rows)})" if len(rows) > len(shown) else ""
    lines += ["", text_table([f"class{more}", "images", "error, %"], [(n, count, 100 * e) for n, count, e in shown])]
    published = published_errors(result["dataset"])
    if published:
        top5 = result["top5_error"]
        ours = Published("this", 100 * result["top1_error"], "", None if top5 is None else 100 * top5)
        table = [
            (each.name, _hundredths(each.error), _hundredths(each.top5), each.source) for each in (ours, *published)
        ]
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


def _hundredths(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.2f}"


def _check_same_images(first: Run, expected: Scored, run: Run, other: Scored) -> None:
    if other.names != expected.names or not np.array_equal(other.labels, expected.labels):
        raise InputError(
            f"{run.folder} and {first.folder} were not trained on the same set: only networks for the same images and "
            "classes can be averaged"
        )
