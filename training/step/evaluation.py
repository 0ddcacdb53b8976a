"""Evaluates a network on a whole split while it is trained."""

from collections.abc import Iterable

import numpy as np

from training.batch import Batch
from training.step.steps import TOP, Step


def evaluate(evaluation_step: Step, batches: Iterable[Batch]) -> dict[str, float]:
    """Evaluates all images of some batches.

    Args:
        evaluation_step: As `make_evaluation_step` makes it.
        batches: Distributed batches.

    Returns:
        `loss`, in nats; `accuracy` and, with more than five classes, `top5_accuracy`; and `precision`, `recall` and
        `f1`, means over the classes that occur among labels or answers, each class counting alike.
    """
    sums: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, value in evaluation_step(batch).items():
            sums[name] = sums.get(name, 0) + np.asarray(value, np.float64)
    images, counts = sums["images"], sums["counts"]
    figures = {"loss": sums["loss"] / images, "accuracy": counts[2].sum() / images}
    if counts.shape[1] > TOP:
        figures["top5_accuracy"] = sums["top5_accuracy"] / images
    return {name: float(value) for name, value in (figures | _class_means(counts)).items()}


def _class_means(counts: np.ndarray) -> dict[str, np.ndarray]:
    labelled, answered, both = counts[:, counts[:2].any(axis=0)]
    return {
        "precision": np.mean(both / np.maximum(answered, 1)),
        "recall": np.mean(both / np.maximum(labelled, 1)),
        "f1": np.mean(2 * both / (labelled + answered)),
    }
