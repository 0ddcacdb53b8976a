"""Which parts of a test image a network is shown: the centre, ten crops, or every window at several sizes."""

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_prelu.networks.fully_convolutional import fully_convolutional


def five_crops(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The four corners and the centre of an image.

    Args:
        image: `[H, W, C]`, at least as large as a crop.
        height: Of a crop.
        width: Of a crop.

    Returns:
        `[5, height, width, C]`: upper left, upper right, lower left, lower right, centre.
    """
    bottom, right = tf.shape(image)[0] - height, tf.shape(image)[1] - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [image[top : top + height, left : left + width] for top, left in places]
    return tf.ensure_shape(tf.stack(crops), (5, height, width, image.shape[-1]))


def mirrored_too(images: tf.Tensor) -> tf.Tensor:
    """Images `[N, H, W, C]`, and after them the same seen in a mirror."""
    return tf.concat([images, images[:, :, ::-1]], axis=0)


def score_crops(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function from `[N, views, H, W, C]` to `[N, classes]`: the mean score over an image's views."""

    @tf.function(reduce_retracing=True)
    def scores(views: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(views, tf.concat([[-1], tf.shape(views)[2:]], axis=0))
        flat = tf.ensure_shape(flat, (None, *views.shape[2:]))
        each = tf.nn.softmax(tf.cast(model(flat, training=False), tf.float32))
        return tf.reduce_mean(tf.reshape(each, (-1, tf.shape(views)[1], each.shape[-1])), axis=1)

    return scores


def score_windows(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function from images `[N, H, W, C]` of any one size to `[classes]`.

    It is the mean score over all windows of all of them, as the paper tests its networks (section 3): the
    convolutions run once over the whole images.

    Raises:
        ValueError: A network that cannot be moved over an image.
    """
    dense = fully_convolutional(model)

    @tf.function(reduce_retracing=True)
    def scores(images: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.softmax(tf.cast(dense(images, training=False), tf.float32)), axis=(0, 1, 2))

    return scores
