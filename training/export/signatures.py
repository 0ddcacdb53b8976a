"""The signatures of the contract between training and serving, their warm-up requests, and the SavedModel."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from keras_prelu.networks.fully_convolutional import fully_convolutional
from training.classifier import Classifier
from training.data.preprocessing import decode_any
from training.errors import InputError

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


_LONGEST = 4  # times the shorter side: a strip of 20,000 x 1 pixels, scaled whole, would take all memory


@dataclasses.dataclass(frozen=True)
class DenseClassifier:
    """From an image of any size to the mean, over all windows as large as the classifier's images, of its scores.

    Attributes:
        network: From images `[N, H, W, channels]` in 0..255 to logits `[N, rows, columns, classes]`.
        labels: The classes' names.
        image_shape: `(height, width, channels)` of a window.
        scale: What an encoded image's shorter side is scaled to.
    """

    network: keras.Model
    labels: tuple[str, ...]
    image_shape: tuple[int, int, int]
    scale: int

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes an image and scales its shorter side; of a strip the middle, four times as long as wide, is kept.

        Args:
            encoded: Scalar string, a JPEG, PNG, GIF or BMP.

        Returns:
            float32 tensor `(height, width, channels)`, values 0..255.
        """
        image = decode_any(encoded, self.image_shape[2])
        size = tf.shape(image)[:2]
        kept = tf.minimum(size, _LONGEST * tf.reduce_min(size))
        top, left = tf.unstack((size - kept) // 2)
        image = image[top : top + kept[0], left : left + kept[1]]
        scaled = tf.cast(tf.round(kept * self.scale / tf.reduce_min(kept)), tf.int32)
        return tf.image.resize(image, scaled, antialias=True)

    def scores(self, images: tf.Tensor) -> tf.Tensor:
        """float32 scores `[N, classes]` with the sum 1 each, of images at least as large as a window."""
        windows = tf.nn.softmax(tf.cast(self.network(images, training=False), tf.float32))
        return tf.reduce_mean(windows, axis=[1, 2])


def make_dense(classifier: Classifier) -> DenseClassifier:
    """A dense classifier with a copy of the classifier's weights.

    Raises:
        InputError: The network cannot be moved over an image.
    """
    try:
        network = fully_convolutional(classifier.network)
    except ValueError as error:
        raise InputError(f"this network can have no dense signature: {error}") from None
    scale = classifier.config.test_scale or max(classifier.image_shape[:2])
    return DenseClassifier(network, classifier.labels, classifier.image_shape, scale)


def make_dense_signatures(classifier: DenseClassifier) -> Signatures:
    """`dense`, which takes pixels, scaled as the caller likes, and `dense_bytes`, which takes encoded images."""
    height, width, channels = classifier.image_shape
    too_small = f"dense takes images of at least {height}x{width} pixels"

    def dense(images: tf.Tensor) -> dict[str, tf.Tensor]:
        large_enough = tf.debugging.assert_greater_equal(tf.shape(images)[1:3], [height, width], too_small)
        with tf.control_dependencies([large_enough]):
            return answer(classifier.scores(tf.identity(images)))

    def dense_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def one(encoded: tf.Tensor) -> tf.Tensor:  # images differ in size
            return classifier.scores(classifier.decode(encoded)[tf.newaxis])[0]

        spec = tf.TensorSpec([len(classifier.labels)], tf.float32)
        return answer(tf.map_fn(one, image_bytes, fn_output_signature=spec))

    return {
        "dense": signature(dense, "images", tf.TensorSpec([None, None, None, channels], tf.float32)),
        "dense_bytes": signature(dense_bytes, "image_bytes", tf.TensorSpec([None], tf.string)),
    }


def write_warmup_requests(path: pathlib.Path, encoded: bytes, pixels: np.ndarray, dense: bool) -> None:
    """Writes a request for each signature, with one image.

    Args:
        path: The file, `tf_serving_warmup_requests` in `assets.extra`.
        encoded: The image.
        pixels: The same as the network sees it, `[height, width, channels]`.
        dense: Whether there are dense signatures.
    """
    images, image_bytes = pixels[np.newaxis], [encoded]
    logs = [_predict("serving_default", "images", images), _predict("image_bytes", "image_bytes", image_bytes)]
    if dense:
        logs += [_predict("dense", "images", images), _predict("dense_bytes", "image_bytes", image_bytes)]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in (*logs, _classify(encoded)):
            writer.write(log.SerializeToString())


def make_example(encoded: bytes) -> tf.train.Example:
    """What the signature `classify` takes for an encoded image."""
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(encoded)
    return example


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
