"""Signatures for the whole of images of any size: the mean score over every window, as in the paper's section 3."""

import dataclasses

import keras
import tensorflow as tf

from keras_prelu.networks.fully_convolutional import fully_convolutional
from training.data.preprocessing import decode_any
from training.errors import InputError
from training.exports.classifier import Classifier
from training.exports.signatures import Signatures, answer, signature

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
