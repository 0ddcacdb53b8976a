"""Metrics of scores against labels, and the published errors to compare them with."""

import csv
import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support, top_k_accuracy_score

NUM_BINS = 15


class ClassMetrics(NamedTuple):
    """Precision, recall and F1 of one class, or their means over all classes that have images."""

    precision: float
    recall: float
    f1: float


@dataclasses.dataclass(frozen=True)
class Metrics:
    """How well scores fit the labels of a split.

    Attributes:
        images: Number of images.
        top1_error: Share of images whose class does not have the largest score.
        top5_error: Share of images whose class is not among the five largest scores; None for five classes or fewer.
        loss: Mean cross-entropy, in nats.
        macro: Means over the classes that have images.
        calibration_error: Mean gap between the largest score and the share of images where it is right, over bins of
            equal width, weighted by their images (Naeini et al. 2015; Guo et al., "On Calibration of Modern Neural
            Networks", 2017).
        bins: `(images, mean largest score, share right)` of each bin that holds an image.
        confusion: `[classes, classes]`, the number of images of a row's class that were classified as a column's.
        classes: By class number, for the classes that have images.
    """

    images: int
    top1_error: float
    top5_error: float | None
    loss: float
    macro: ClassMetrics
    calibration_error: float
    bins: list[tuple[int, float, float]]
    confusion: np.ndarray
    classes: dict[int, ClassMetrics]


def compute_metrics(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Computes the metrics of scores `[images, classes]`, whose rows sum to 1, and labels `[images]`."""
    scores = scores.astype(np.float64)
    scores /= scores.sum(axis=1, keepdims=True)  # exactly 1: scikit-learn warns of a float32 softmax's
    best, every = scores.argmax(axis=1), np.arange(scores.shape[1])
    present = np.unique(labels)
    columns = precision_recall_fscore_support(labels, best, labels=present, zero_division=0)[:3]
    bins = _bins(scores.max(axis=1), best == labels)
    return Metrics(
        images=len(labels),
        top1_error=float(np.mean(best != labels)),
        top5_error=1 - float(top_k_accuracy_score(labels, scores, k=5, labels=every)) if len(every) > 5 else None,
        loss=float(log_loss(labels, scores, labels=every)),
        macro=ClassMetrics(*(float(column.mean()) for column in columns)),
        calibration_error=sum(count * abs(score - right) for count, score, right in bins) / len(labels),
        bins=bins,
        confusion=confusion_matrix(labels, best, labels=every),
        classes={int(k): ClassMetrics(*map(float, row)) for k, *row in zip(present, *columns, strict=True)},
    )


def _bins(largest: np.ndarray, right: np.ndarray) -> list[tuple[int, float, float]]:
    """Bins are open below and closed above."""
    indices = np.clip(np.ceil(largest * NUM_BINS) - 1, 0, NUM_BINS - 1)
    members = [indices == index for index in np.unique(indices)]
    return [(int(m.sum()), float(largest[m].mean()), float(right[m].mean())) for m in members]


class Published(NamedTuple):
    """A network's errors on a dataset's test images in percent, and their source; no top-5 error is None."""

    network: str
    top1: float
    top5: float | None
    source: str


def published_errors(dataset: str) -> list[Published]:
    """The errors in `published.csv` for a dataset of tensorflow-datasets, lowest first."""
    name = "imagenet2012" if dataset.startswith("imagenet2012") else dataset
    with (pathlib.Path(__file__).parent / "published.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == name]
    found = [Published(row["network"], float(row["top1"]), _number(row["top5"]), row["source"]) for row in rows]
    return sorted(found, key=lambda each: each.top1)


def _number(text: str) -> float | None:
    return float(text) if text else None
