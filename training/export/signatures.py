"""The signatures of the contract between training and serving, their warm-up requests, and the SavedModel."""

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from training.classifier import Classifier, DenseClassifier

TOP = 5  # classes in an answer to Classify, where the set has as many

Signatures = dict[str, tf.types.experimental.GenericFunction]


def make_signatures(classifier: Classifier) -> Signatures:
    """Puts the contract's three signatures around a network."""
    names = tf.constant(classifier.labels)
    top = min(TOP, len(classifier.labels))
    pixels = tf.TensorSpec(classifier.image_shape, tf.float32)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return _answer(classifier.scores(images))

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


def make_dense_signatures(classifier: DenseClassifier) -> Signatures:
    """`dense`, which takes pixels, scaled as the caller likes, and `dense_bytes`, which takes encoded images."""
    height, width, channels = classifier.image_shape
    too_small = f"dense takes images of at least {height}x{width} pixels"

    def dense(images: tf.Tensor) -> dict[str, tf.Tensor]:
        large_enough = tf.debugging.assert_greater_equal(tf.shape(images)[1:3], [height, width], too_small)
        with tf.control_dependencies([large_enough]):
            return _answer(classifier.scores(tf.identity(images)))

    def dense_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def one(encoded: tf.Tensor) -> tf.Tensor:  # images differ in size
            return classifier.scores(classifier.decode(encoded)[tf.newaxis])[0]

        spec = tf.TensorSpec([len(classifier.labels)], tf.float32)
        return _answer(tf.map_fn(one, image_bytes, fn_output_signature=spec))

    return {
        "dense": signature(dense, "images", tf.TensorSpec([None, None, None, channels], tf.float32)),
        "dense_bytes": signature(dense_bytes, "image_bytes", tf.TensorSpec([None], tf.string)),
    }


def signature(function: Any, name: str, spec: tf.TensorSpec) -> tf.types.experimental.GenericFunction:
    """Makes a signature of a function of one tensor; its input has that name."""
    return tf.function(function, input_signature=[tf.TensorSpec(spec.shape, spec.dtype, name)], autograph=False)


def save_model(
    folder: pathlib.Path,
    signatures: Signatures,
    networks: Sequence[keras.Model],
    labels_file: pathlib.Path | None = None,
) -> None:
    """Writes a SavedModel of signatures that use the networks' weights; `labels_file` becomes an asset of its name.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    module = tf.Module()  # what it holds is saved with the graph
    # The variables themselves: of the Keras objects around them TensorFlow would save second copies, and a session,
    # which is what TensorFlow Serving runs, would fill those and leave the graph's own empty.
    module.weights = [variable.value for network in networks for variable in network.variables]
    if labels_file:
        module.labels = tf.saved_model.Asset(str(labels_file))
    try:
        tf.saved_model.save(module, str(folder), signatures=signatures)
    except tf.errors.OpError as error:  # nothing is computed here, only written
        raise _write_error(error) from None


def write_warmup_requests(path: pathlib.Path, encoded: bytes, pixels: np.ndarray, dense: bool) -> None:
    """Writes a request for each signature, with one image, encoded and as pixels `[height, width, channels]`.

    Raises:
        OSError: The file cannot be written.
    """
    images, image_bytes = pixels[np.newaxis], [encoded]
    logs = [_predict("serving_default", "images", images), _predict("image_bytes", "image_bytes", image_bytes)]
    if dense:
        logs += [_predict("dense", "images", images), _predict("dense_bytes", "image_bytes", image_bytes)]
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for log in (*logs, _classify(encoded)):
                writer.write(log.SerializeToString())
    except tf.errors.OpError as error:
        raise _write_error(error) from None


def make_example(encoded: bytes) -> tf.train.Example:
    """The example with an encoded image that the signature `classify` takes."""
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(encoded)
    return example


def _answer(scores: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"scores": scores, "classes": tf.argmax(scores, axis=-1, output_type=tf.int64)}


def _write_error(error: tf.errors.OpError) -> OSError:
    """TensorFlow's errors have no errno; what they say depends on the language of the system."""
    return OSError(None, f"TensorFlow's {type(error).__name__}; the disk may be full, or a quota reached")


def _predict(signature: str, name: str, values: list[bytes] | np.ndarray) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))


def _classify(encoded: bytes) -> prediction_log_pb2.PredictionLog:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.signature_name = "classify"
    request.input.example_list.examples.append(make_example(encoded))
    return prediction_log_pb2.PredictionLog(classify_log=prediction_log_pb2.ClassifyLog(request=request))
