"""The signatures of the contract between training and serving, and the SavedModel that holds them."""

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from training.exports.classifier import Classifier

TOP = 5  # classes in an answer to Classify, where the set has as many

Signatures = dict[str, tf.types.experimental.GenericFunction]


def make_signatures(classifier: Classifier) -> Signatures:
    """Puts the contract's three signatures around a network."""
    names = tf.constant(classifier.labels)
    top = min(TOP, len(classifier.labels))
    pixels = tf.TensorSpec(classifier.image_shape, tf.float32)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(classifier.scores(images))

    def predict_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return predict(decode(image_bytes))

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        values, indices = tf.math.top_k(classifier.scores(decode(parsed["image/encoded"])), top)
        return {"classes": tf.gather(names, indices), "scores": values}

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(classifier.decode, encoded, fn_output_signature=pixels)

    strings = tf.TensorSpec([None], tf.string)
    return {
        "serving_default": signature(predict, "images", tf.TensorSpec([None, *pixels.shape], tf.float32)),
        "image_bytes": signature(predict_bytes, "image_bytes", strings),
        "classify": signature(classify, "inputs", strings),
    }


def answer(scores: tf.Tensor) -> dict[str, tf.Tensor]:
    """What Predict gives for scores `[N, classes]`."""
    return {"scores": scores, "classes": tf.argmax(scores, axis=-1, output_type=tf.int64)}


def signature(function: Any, name: str, spec: tf.TensorSpec) -> tf.types.experimental.GenericFunction:
    """A function of one tensor as a signature whose input has that name."""
    return tf.function(function, input_signature=[tf.TensorSpec(spec.shape, spec.dtype, name)])


def save_model(
    folder: pathlib.Path,
    signatures: Signatures,
    networks: Sequence[keras.Model],
    labels_file: pathlib.Path | None = None,
) -> None:
    """Writes a SavedModel.

    Args:
        folder: Where.
        signatures: By their names.
        networks: Those whose weights the signatures use.
        labels_file: A file that becomes an asset, under its own name.
    """
    module = tf.Module()  # what it holds is saved with the graph
    # The variables themselves: of the Keras objects around them TensorFlow would save second copies, and a session,
    # which is what TensorFlow Serving runs, would fill those and leave the graph's own empty.
    module.weights = [variable.value for network in networks for variable in network.variables]
    if labels_file:
        module.labels = tf.saved_model.Asset(str(labels_file))
    tf.saved_model.save(module, str(folder), signatures=signatures)
