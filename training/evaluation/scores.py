"""How well scores fit labels: errors, class by class, and whether a score can be believed."""

import dataclasses

import numpy as np

NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What scores are worth.

    Attributes:
        images: How many were judged.
        top1_error: Share of images whose class has not the largest score.
        top5_error: Share whose class is not among the five largest; NaN where there are no more than five classes.
        loss: Mean of -log(score of the image's class), in nats.
        calibration_error: Mean gap between the largest score and how often it is right, over bins of equal width that
            count by their images (Naeini et al. 2015; Guo et al., "On Calibration of Modern Neural Networks", 2017).
        bins: For each such bin `(images, mean largest score, share right)`.
        confusion: `[classes, classes]`, how many images of a row's class were taken for a column's.
    """

    images: int
    top1_error: float
    top5_error: float
    loss: float
    calibration_error: float
    bins: list[tuple[int, float, float]]
    confusion: np.ndarray

    def class_errors(self) -> np.ndarray:
        """For each class the share of its images that were taken for another; NaN where it has none."""
        counts = self.confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return 1 - np.diag(self.confusion) / counts


def judge(scores: np.ndarray, labels: np.ndarray) -> Judgement:
    """Judges the scores of labelled images.

    Args:
        scores: `[images, classes]`, each row with the sum 1.
        labels: `[images]`, each image's class.
    """
    scores = scores.astype(np.float64)
    num_images, num_classes = scores.shape
    own = scores[np.arange(num_images), labels]
    higher = (scores > own[:, None]).sum(axis=1)
    best = scores.argmax(axis=1)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels, best), 1)
    bins = _bins(scores.max(axis=1), best == labels)
    return Judgement(
        images=num_images,
        top1_error=float((best != labels).mean()),
        top5_error=float((higher >= 5).mean()) if num_classes > 5 else float("nan"),
        loss=float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()),
        calibration_error=sum(count * abs(score - right) for count, score, right in bins) / num_images,
        bins=bins,
        confusion=confusion,
    )


def _bins(largest: np.ndarray, right: np.ndarray) -> list[tuple[int, float, float]]:
    """Those that hold an image, each open below and closed above."""
    places = np.clip(np.ceil(largest * NUM_BINS) - 1, 0, NUM_BINS - 1)
    members = [places == place for place in range(NUM_BINS)]
    return [(int(m.sum()), float(largest[m].mean()), float(right[m].mean())) for m in members if m.any()]
