"""Compares the scores of everything that was exported with the Keras model's, on real images."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from training.classifier import Classifier, DenseClassifier
from training.errors import TrainingError
from training.export.signatures import make_example

TOLERANCE = 1e-5  # of a score; float32 leaves about 1e-7 of it
_BATCH = 8  # so that the activations of 32 images need not fit into memory at once

Sample = tuple[bytes, np.ndarray]  # an encoded image, and the pixels that the network sees of it


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The distance of scores from the Keras model's.

    Attributes:
        largest_difference: Of any score of any image.
        top1: Share of images with the same best class.
    """

    largest_difference: float
    top1: float


def compare(expected: np.ndarray, scores: np.ndarray) -> Agreement:
    """Compares scores `[N, classes]`; a score that is not a number is infinitely wrong."""
    same_best = expected.argmax(axis=1) == scores.argmax(axis=1)
    return Agreement(_largest_difference(expected, scores), float(same_best.mean()))


def check(agreements: dict[str, Agreement]) -> None:
    """Checks that everything agrees with the Keras model.

    Raises:
        TrainingError: Something does not.
    """
    for name, agreement in agreements.items():
        if agreement.largest_difference > TOLERANCE:
            raise TrainingError(
                f"a score of {name} differs from the Keras model's by {agreement.largest_difference:.1e}, more than "
                f"{TOLERANCE:.0e}: nothing was published"
            )


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Keeps GPUs from rounding the factors of float32 products to ten bits while its block runs."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def in_batches(scores: Callable[[tf.Tensor], tf.Tensor], inputs: Sequence[bytes | np.ndarray]) -> np.ndarray:
    """The results of a function of a batch, for any number of inputs."""
    batches = [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]
    return np.concatenate([scores(tf.stack(batch)) for batch in batches])


def compare_signatures(signatures: Any, classifier: Classifier, samples: Sequence[Sample]) -> dict[str, Agreement]:
    """Compares the contract's signatures, of a SavedModel that was loaded, with the network itself."""
    encoded, pixels = zip(*samples, strict=True)
    expected = in_batches(classifier.scores, pixels)
    default, image_bytes = signatures["serving_default"], signatures["image_bytes"]
    return {
        "serving_default": compare(expected, in_batches(lambda x: default(images=x)["scores"], pixels)),
        "image_bytes": compare(expected, in_batches(lambda x: image_bytes(image_bytes=x)["scores"], encoded)),
        "classify": _compare_classify(signatures["classify"], classifier.labels, encoded, expected),
    }


def compare_dense(signatures: Any, dense: DenseClassifier, samples: Sequence[Sample]) -> dict[str, Agreement]:
    """Compares the dense signatures, `dense` on images half as large again as a window."""
    encoded, pixels = zip(*samples, strict=True)
    height, width, channels = dense.image_shape
    larger = [tf.image.resize(each, (height * 3 // 2, width * 3 // 2)).numpy() for each in pixels]
    # Traced for any size: a mean image is subtracted by channel then, and pixel by pixel from images of its own size.
    scores = tf.function(dense.scores, input_signature=[tf.TensorSpec([None, None, None, channels])], autograph=False)
    of_bytes = np.concatenate([scores(dense.decode(each)[None]) for each in encoded])
    found = in_batches(lambda x: signatures["dense"](images=x)["scores"], larger)
    found_of_bytes = in_batches(lambda x: signatures["dense_bytes"](image_bytes=x)["scores"], encoded)
    return {
        "dense": compare(in_batches(scores, larger), found),
        "dense_bytes": compare(of_bytes, found_of_bytes),
    }


def _compare_classify(
    classify: Any, labels: Sequence[str], encoded: Sequence[bytes], expected: np.ndarray
) -> Agreement:
    examples = [make_example(image).SerializeToString() for image in encoded]
    scores = in_batches(lambda x: classify(inputs=x)["scores"], examples)
    names = in_batches(lambda x: classify(inputs=x)["classes"], examples)
    indices = np.vectorize({label.encode(): index for index, label in enumerate(labels)}.__getitem__)(names)
    best_first = -np.sort(-expected, axis=1)[:, : scores.shape[1]]
    of_these_labels = np.take_along_axis(expected, indices, axis=1)
    largest = max(_largest_difference(best_first, scores), _largest_difference(of_these_labels, scores))
    return Agreement(largest, float((indices[:, 0] == expected.argmax(axis=1)).mean()))


def _largest_difference(expected: np.ndarray, scores: np.ndarray) -> float:
    difference = np.abs(expected.astype(np.float64) - scores)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
