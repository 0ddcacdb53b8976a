"""Random augmentation of training images. All of it follows from a seed: the same seed gives the same image."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.config import Config
from training.data.preprocessing import REDUCTIONS, decode_any, decode_image, num_halvings
from training.data.randaugment import RandAugment, transform
from training.errors import InputError

# Each draw adds its number to the first number of an image's seed, which counts seeds and epochs and stays far below.
# tf.random.fold_in would make another seed of it as well, but takes as long as the draw itself, 100 us.
_CROP, _COLOUR, _ERASES, _ERASED = (number << 48 for number in range(1, 5))

# Variances, for pixels in 0..1, and directions of the principal components of ImageNet's colours (red, green, blue):
# `eigval` and `eigvec` in datasets/imagenet.lua of https://github.com/facebookarchive/fb.resnet.torch.
COLOUR_VARIANCES = (0.2175, 0.0188, 0.0045)
COLOUR_DIRECTIONS = (  # a row for each colour, a column for each component
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
_WHOLE_IMAGE = [[[0.0, 0.0, 1.0, 1.0]]]
_ASPECT_RATIOS = (3 / 4, 4 / 3)  # of Inception crops


def check_augmentation(config: Config, image_shape: tuple[int, int, int]) -> None:
    """Checks that a config's augmentation fits the network's images.

    Raises:
        InputError: A scale below their size, or colours to be altered where there are none.
    """
    *sides, channels = image_shape
    for name in ("scale_min", "test_scale"):
        scale = getattr(config, name)
        if scale and scale < max(sides):
            raise InputError(f"{name} is {scale}, but must be at least {max(sides)}, a side of what the network sees")
    for name in ("pca_colour", "randaugment_num_ops"):
        if getattr(config, name) and channels != 3:
            raise InputError(f"{name} alters red, green and blue, but the images of {config.dataset} have {channels}")


def make_augmentation(config: Config, image_shape: tuple[int, int, int]) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Makes the function from an encoded training image to the network's pixels.

    To be called outside of graphs, for Keras's layers make variables.

    Returns:
        A function of the encoded image, a scalar string, and its seed, int64 `(2,)`; it crops, mirrors and alters the
        image as the config says, and returns a float32 tensor of `image_shape`. Altered colours may lie beyond 0..255.
    """
    num_ops, rate = config.randaugment_num_ops, config.random_erasing
    randaugment = RandAugment(num_ops, config.randaugment_magnitude) if num_ops else None
    # The draw is ours, so that most images are spared the layer's noise: as many normal numbers as pixels.
    erasing = keras.layers.RandomErasing(factor=(1.0, 1.0), dtype="float32") if rate else None

    def augmented(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if config.scale_min or config.crop_area_min:
            image = random_crop(encoded, image_shape, config, seed)
        else:
            image = shifted(decode_image(encoded, image_shape), seed, config)
        if randaugment is not None:
            image = randaugment(image, seed)
        if config.pca_colour:
            image = shift_colours(
                image, _draw(seed, _COLOUR, tf.random.stateless_normal, [3], stddev=config.pca_colour)
            )
        if erasing is not None:
            drawn = _draw(seed, _ERASES, tf.random.stateless_uniform, [])
            image = tf.cond(drawn < rate, lambda: transform(erasing, image, seed, _ERASED), lambda: image)
        return image

    return augmented


def shifted(image: tf.Tensor, seed: tf.Tensor, config: Config) -> tf.Tensor:
    """Crops a zero-padded image back to its shape at a random place, and mirrors it half of the time.

    Args:
        image: float32 `(height, width, channels)`.
        seed: int64 `(2,)`.
        config: `crop_padding` and `flip` are read.
    """
    shape = image.shape
    if config.crop_padding:
        padding = [[config.crop_padding] * 2, [config.crop_padding] * 2, [0, 0]]
        image = tf.image.stateless_random_crop(tf.pad(image, padding), shape, seed)
    if config.flip:
        image = _mirrored(image, tf.random.stateless_uniform([], seed + tf.constant([0, 1], seed.dtype)) < 0.5)
    return image


def random_crop(encoded: tf.Tensor, image_shape: tuple[int, int, int], config: Config, seed: tf.Tensor) -> tf.Tensor:
    """Crops a random window from an image and resizes it.

    With `crop_area_min` the window covers a random share of the image's area, from that to all of it, at an aspect
    ratio from 3/4 to 4/3. With `scale_min` it is the window that the network sees of an image whose shorter side is
    scaled to a random length from `scale_min` to `scale_max`.

    The window is cut out of the source and then resized: of a JPEG nothing else is decoded, at a half, a quarter or an
    eighth of its size as long as that is enough, and it is resized bilinearly; other images with antialiasing where the
    window is more than twice as large as the network's.

    Args:
        encoded: Scalar string, an image of any format that `decode_image` takes.
        image_shape: `(height, width, channels)` of the result.
        config: `scale_min` (not below height and width), `scale_max`, `crop_area_min` and `flip` are read. With `flip`
            the window is mirrored half of the time, before it is resized, while its pixels are bytes.
        seed: int64 `(2,)`.

    Returns:
        float32 tensor of that shape, values 0..255.

    References:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, section 3.1.
        Szegedy et al., "Going Deeper with Convolutions", 2014, section 6.
    """
    target = tf.constant(image_shape[:2])
    draws = tf.unstack(_draw(seed, _CROP, tf.random.stateless_uniform, [4]))

    def window(size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if config.crop_area_min:
            return _inception_window(size, config.crop_area_min, seed)
        return _scaled_window(size, target, (config.scale_min, config.scale_max), draws)

    def cut(image: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        cropped = tf.slice(image, tf.concat([corner, [0]], axis=0), tf.concat([size, [-1]], axis=0))
        return _mirrored(cropped, draws[3] < 0.5) if config.flip else cropped

    def other() -> tf.Tensor:
        image = decode_any(encoded, image_shape[2])
        image = cut(image, *window(tf.shape(image)[:2]))
        much_larger = tf.reduce_any(tf.shape(image)[:2] > 2 * target)
        return tf.cond(
            much_larger, lambda: tf.image.resize(image, target, antialias=True), lambda: tf.image.resize(image, target)
        )

    def jpeg() -> tf.Tensor:
        whole = tf.io.extract_jpeg_shape(encoded)[:2]
        corner, size = window(whole)
        halvings = num_halvings(tf.reduce_max(tf.cast(target / size, tf.float32)))
        corner, size = (_halved(each, halvings) for each in (corner, size))
        # The outermost pixels that are decoded would lack their neighbours' colours: one more is, on each side.
        start, stop = tf.maximum(corner - 1, 0), tf.minimum(corner + size + 1, _halved(whole, halvings))
        area = tf.concat([start, stop - start], axis=0)
        decode = partial(tf.io.decode_and_crop_jpeg, encoded, area, channels=image_shape[2])
        image = tf.switch_case(halvings, [partial(decode, ratio=ratio) for ratio in (1, *REDUCTIONS)])
        size = tf.minimum(size, stop - corner)
        return tf.image.resize(cut(image, corner - start, size), target)

    # Two conditions and a choice, no more: each takes as long as a tenth of the decoding.
    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), jpeg, other), image_shape)


def shift_colours(image: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    """Adds ImageNet's principal colours to every pixel.

    Args:
        image: float32 `(height, width, 3)`, red, green, blue in 0..255.
        amounts: float32 `(3,)`, AlexNet's alphas: component i is added alpha_i times its variance, which the paper
            writes as its eigenvalue lambda_i. The largest component comes first.

    Reference:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 4.1.
    """
    directions = 255 * np.array(COLOUR_DIRECTIONS, np.float32) * np.array(COLOUR_VARIANCES, np.float32)
    shift = tf.reduce_sum(directions * amounts, axis=1)
    # A whole row at a time: to add three numbers to every pixel takes three times as long.
    height, width, channels = image.shape
    shifted_rows = tf.reshape(image, [height, width * channels]) + tf.tile(shift, [width])
    return tf.reshape(shifted_rows, image.shape)


def _inception_window(size: tf.Tensor, area_min: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Corner and size of a window with a random share of an image's area and a random aspect ratio."""
    begin, window, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([size, [1]], axis=0),
        _WHOLE_IMAGE,
        seed + tf.constant([_CROP, 1], seed.dtype),
        min_object_covered=0.0,
        aspect_ratio_range=_ASPECT_RATIOS,
        area_range=(area_min, 1.0),
    )
    return begin[:2], window[:2]


def _scaled_window(
    size: tf.Tensor, target: tf.Tensor, scales: tuple[int, int], draws: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Corner and size of the window that has the target's size once the image's shorter side has a random length."""
    low, high = scales
    scale, *place = draws[:3]
    shorter = low + _part(tf.constant(high - low), scale)
    pixels = tf.cast(target * tf.reduce_min(size), tf.float32) / tf.cast(shorter, tf.float32)
    window = tf.clip_by_value(tf.cast(tf.round(pixels), tf.int32), 1, size)
    return _part(size - window, tf.stack(place)), window


def _part(last: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """A whole number from 0 to `last`, each for an equal share of 0 <= share < 1."""
    return tf.minimum(tf.cast(share * tf.cast(last + 1, tf.float32), tf.int32), last)


def _halved(lengths: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """Lengths after a number of halvings, rounded up as libjpeg does."""
    return -(-lengths // tf.bitwise.left_shift(1, times))


def _mirrored(image: tf.Tensor, mirror: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, mirror, False]))


def _draw(seed: tf.Tensor, number: int, distribution: Any, shape: Sequence[int], **arguments: Any) -> tf.Tensor:
    return distribution(shape, seed + tf.constant([number, 0], seed.dtype), **arguments)
