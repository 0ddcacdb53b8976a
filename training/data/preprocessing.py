"""From an encoded image to the pixels that the network sees: the same code in evaluation and in the served graph."""

from functools import partial

import tensorflow as tf

REDUCTIONS = (2, 4, 8)  # what libjpeg can divide an image's sides by while it decodes


def decode_image(encoded: tf.Tensor, image_shape: tuple[int, int, int], scale: int = 0) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF or BMP, scales it, and crops the centre.

    An image that has the shape already comes through unchanged where there is no `scale`. A JPEG more than four times
    as large as needed is decoded at a half, a quarter or an eighth of its size, still twice what is needed, so that
    one with sides of 20,000 pixels takes neither long nor much memory; its last row and column may move by half a
    pixel. Animations give their first frame; the EXIF orientation of a photo is ignored.

    Args:
        encoded: Scalar string.
        image_shape: `(height, width, channels)` that the network sees.
        scale: What the shorter side becomes, at least the shape's height and width; 0 for the least that covers them.

    Returns:
        float32 tensor of that shape, values 0..255.
    """
    height, width, channels = image_shape
    target = tf.constant([height, width])
    image = _decode(encoded, channels, target, scale)
    image = _without_far_ends(image, 4 * tf.cast(target, tf.float32) / _factor(tf.shape(image)[:2], target, scale))
    size = tf.shape(image)[:2]
    scaled = tf.cast(tf.round(tf.cast(size, tf.float32) * _factor(size, target, scale)), tf.int32)
    scaled = tf.maximum(target, scaled)
    image = tf.cond(  # resizing to the same size would cost a small image more than decoding it
        tf.reduce_all(size == scaled),
        lambda: tf.cast(image, tf.float32),
        # antialias: without it a photo that is made much smaller keeps single pixels instead of averages
        lambda: tf.image.resize(image, scaled, antialias=True),
    )
    top, left = tf.unstack((scaled - target) // 2)
    image = image[top : top + height, left : left + width]
    return tf.ensure_shape(image, image_shape)


def decode_any(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF or BMP of any size, as uint8."""
    image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    image.set_shape([None, None, channels])
    return image


def num_halvings(factor: tf.Tensor) -> tf.Tensor:
    """How often libjpeg may halve an image, up to three times, that is then to be scaled by `factor` altogether."""
    return tf.reduce_sum(tf.cast(factor * tf.constant(REDUCTIONS, tf.float32) <= 1, tf.int32))


def _decode(encoded: tf.Tensor, channels: int, target: tf.Tensor, scale: int) -> tf.Tensor:
    def jpeg() -> tf.Tensor:
        halvings = num_halvings(2 * _factor(tf.io.extract_jpeg_shape(encoded)[:2], target, scale))
        ratios = (1, *REDUCTIONS)
        return tf.switch_case(halvings, [partial(tf.io.decode_jpeg, encoded, channels, ratio) for ratio in ratios])

    image = tf.cond(tf.io.is_jpeg(encoded), jpeg, lambda: decode_any(encoded, channels))
    image.set_shape([None, None, channels])
    return image


def _factor(size: tf.Tensor, target: tf.Tensor, scale: int) -> tf.Tensor:
    """What an image's sides are multiplied by."""
    wanted = tf.constant([scale, scale]) if scale else target
    return tf.reduce_max(tf.cast(wanted, tf.float32) / tf.cast(size, tf.float32))


def _without_far_ends(image: tf.Tensor, longest: tf.Tensor) -> tf.Tensor:
    """Cuts off what a centre crop is far from seeing: scaled whole, a strip of 20,000 x 1 would take 10 GB."""
    size = tf.shape(image)[:2]
    kept = tf.minimum(size, tf.cast(tf.math.ceil(longest), tf.int32))
    top, left = tf.unstack((size - kept) // 2)
    return image[top : top + kept[0], left : left + kept[1]]
