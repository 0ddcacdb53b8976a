"""From an encoded image to the pixels that the network sees: the same code in training and in the served graph."""

import tensorflow as tf


def decode_image(encoded: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Decodes a JPEG or PNG, scales its shorter sides until it covers the shape, and crops the centre.

    An image that has the shape already comes through unchanged.

    Args:
        encoded: Scalar string.
        image_shape: `(height, width, channels)` that the network sees.

    Returns:
        float32 tensor of that shape, values 0..255.
    """
    height, width, channels = image_shape
    image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    image.set_shape([None, None, channels])
    size = tf.shape(image)[:2]
    target = tf.constant([height, width])
    scale = tf.reduce_max(tf.cast(target, tf.float32) / tf.cast(size, tf.float32))
    scaled = tf.maximum(target, tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32))
    # antialias: without it a photo that is made much smaller keeps single pixels instead of averages
    image = tf.image.resize(image, scaled, antialias=True)
    top, left = tf.unstack((scaled - target) // 2)
    image = image[top : top + height, left : left + width]
    return tf.ensure_shape(image, image_shape)


def augment(image: tf.Tensor, seed: tf.Tensor, crop_padding: int, flip: bool) -> tf.Tensor:
    """Shifts an image by a random crop of its zero-padded self, and mirrors it half of the time.

    Args:
        image: float32 `(height, width, channels)`.
        seed: int64 `(2,)`; the same seed gives the same image.
        crop_padding: Pixels of zeros on each side before the crop.
        flip: Whether to mirror.

    Returns:
        Tensor of the image's shape.
    """
    shape = image.shape
    if crop_padding:
        padding = [[crop_padding] * 2, [crop_padding] * 2, [0, 0]]
        image = tf.image.stateless_random_crop(tf.pad(image, padding), shape, seed)
    if flip:
        image = tf.image.stateless_random_flip_left_right(image, seed + tf.constant([0, 1], seed.dtype))
    return image
