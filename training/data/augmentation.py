"""What is done to training images at random. All of it follows from a seed: the same seed gives the same image."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from training.config import Config
from training.data.preprocessing import REDUCTIONS, decode_any, num_halvings
from training.data.randaugment import Policy
from training.errors import InputError

# What each draw adds to the first number of an image's seed, which counts seeds and epochs and stays far below.
# tf.random.fold_in would make another seed of it as well, but takes as long as the draw itself, 100 us.
_CROP, _COLOUR, _BOX, _NOISE = (number << 48 for number in range(1, 5))

# Variances, for pixels in 0..1, and directions of the principal components of ImageNet's colours (red, green, blue):
# `eigval` and `eigvec` in datasets/imagenet.lua of https://github.com/facebookarchive/fb.resnet.torch.
COLOUR_VARIANCES = (0.2175, 0.0188, 0.0045)
COLOUR_DIRECTIONS = (  # a row for each colour, a column for each component
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
_ERASED_SHARES = (0.02, 0.4)  # of an image's area, and the sides' ratio: Zhong et al., table 1
_ERASED_RATIO = 0.3


def check_augmentation(config: Config, image_shape: tuple[int, int, int]) -> None:
    """Checks that what a config does to images can be done to those that the network sees.

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


def augment(image: tf.Tensor, seed: tf.Tensor, config: Config, policy: Policy | None = None) -> tf.Tensor:
    """Shifts and mirrors an image, sends it through a policy, alters its colours and erases a part, as the config asks.

    What `crop_at_random_scale` has cropped it has mirrored, too.

    Args:
        image: float32 `(height, width, channels)`, values 0..255.
        seed: int64 `(2,)`.
        config: `crop_padding`, `scale_min`, `flip`, `pca_colour` and `random_erasing` are read.
        policy: That of the config's `randaugment_num_ops`, if it asks for one.

    Returns:
        Tensor of the image's shape. Altered colours may lie beyond 0..255.
    """
    shape = image.shape
    if config.crop_padding:
        padding = [[config.crop_padding] * 2, [config.crop_padding] * 2, [0, 0]]
        image = tf.image.stateless_random_crop(tf.pad(image, padding), shape, seed)
    if config.flip and not config.scale_min:
        image = _mirrored(image, tf.random.stateless_uniform([], seed + tf.constant([0, 1], seed.dtype)) < 0.5)
    if policy is not None:
        image = policy(image, seed)
    if config.pca_colour:
        image = shift_colours(image, _draw(seed, _COLOUR, tf.random.stateless_normal, [3], stddev=config.pca_colour))
    if config.random_erasing:
        erased, *box = tf.unstack(_draw(seed, _BOX, tf.random.stateless_uniform, [5]))
        image = tf.cond(erased < config.random_erasing, lambda: _erase_at_random(image, box, seed), lambda: image)
    return image


def crop_at_random_scale(
    encoded: tf.Tensor, image_shape: tuple[int, int, int], scales: tuple[int, int], seed: tf.Tensor, flip: bool = False
) -> tf.Tensor:
    """Crops a window at random from an image whose shorter side was scaled to a random length.

    The window is taken out of the source, as so many pixels as make the network's at that scale, and then resized: of
    a JPEG nothing else is decoded, at a half, a quarter or an eighth of its size as long as that is enough, and it is
    resized bilinearly; other images with antialiasing where the window is more than twice as large as the network's.

    Args:
        encoded: Scalar string, an image of any format that `decode_image` takes.
        image_shape: `(height, width, channels)` of the window.
        scales: Least and largest length of the shorter side, both drawn too; neither below the window's sides.
        seed: int64 `(2,)`.
        flip: Whether to mirror it half of the time, before it is resized, while its pixels are bytes.

    Returns:
        float32 tensor of that shape, values 0..255.

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, section 3.1.
    """
    low, high = scales
    scale, *place, mirror = tf.unstack(_draw(seed, _CROP, tf.random.stateless_uniform, [4]))
    shorter = low + _part(tf.constant(high - low), scale)
    target = tf.constant(image_shape[:2])

    def cut(image: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        window = tf.slice(image, tf.concat([corner, [0]], axis=0), tf.concat([size, [-1]], axis=0))
        return _mirrored(window, mirror < 0.5) if flip else window

    def other() -> tf.Tensor:
        image = decode_any(encoded, image_shape[2])
        image = cut(image, *_window(tf.shape(image)[:2], target, shorter, place))
        much_larger = tf.reduce_any(tf.shape(image)[:2] > 2 * target)
        return tf.cond(
            much_larger, lambda: tf.image.resize(image, target, antialias=True), lambda: tf.image.resize(image, target)
        )

    def jpeg() -> tf.Tensor:
        whole = tf.io.extract_jpeg_shape(encoded)[:2]
        halvings = num_halvings(tf.cast(shorter / tf.reduce_min(whole), tf.float32))
        size = -(-whole // tf.bitwise.left_shift(1, halvings))
        corner, window = _window(size, target, shorter, place)
        # The outermost pixels that are decoded would lack their neighbours' colours: one more is, on each side.
        start, stop = tf.maximum(corner - 1, 0), tf.minimum(corner + window + 1, size)
        area = tf.concat([start, stop - start], axis=0)
        decode = partial(tf.io.decode_and_crop_jpeg, encoded, area, channels=image_shape[2])
        image = tf.switch_case(halvings, [partial(decode, ratio=ratio) for ratio in (1, *REDUCTIONS)])
        return tf.image.resize(cut(image, corner - start, window), target)

    # Two conditions and a choice, no more: each takes as long as a tenth of the decoding.
    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), jpeg, other), image_shape)


def shift_colours(image: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    """Adds ImageNet's principal colours to every pixel.

    Args:
        image: float32 `(height, width, 3)`, red, green, blue in 0..255.
        amounts: float32 `(3,)`, the factors of the components' variances, the largest component first.

    Reference:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 4.1.
    """
    directions = 255 * np.array(COLOUR_DIRECTIONS, np.float32) * np.array(COLOUR_VARIANCES, np.float32)
    shift = tf.reduce_sum(directions * amounts, axis=1)
    # A whole row at a time: to add three numbers to every pixel takes three times as long.
    height, width, channels = image.shape
    shifted = tf.reshape(image, [height, width * channels]) + tf.tile(shift, [width])
    return tf.reshape(shifted, image.shape)


def erase(image: tf.Tensor, corner: tf.Tensor, size: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Replaces a rectangle of an image by noise of the image's shape.

    Args:
        image: `(height, width, channels)`.
        corner: int32 `(2,)`, its first row and column.
        size: int32 `(2,)`, its height and width.
        noise: Of the image's shape.
    """
    inside = [
        (tf.range(length) >= first) & (tf.range(length) < first + each)
        for length, first, each in zip(image.shape[:2], tf.unstack(corner), tf.unstack(size), strict=True)
    ]
    return tf.where((inside[0][:, None] & inside[1][None, :])[..., None], noise, image)


def _erase_at_random(image: tf.Tensor, box: list[tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Random erasing with random values.

    Reference:
        Zhong et al., "Random Erasing Data Augmentation", 2017, algorithm 1; a rectangle that does not fit is cut.
    """
    share, ratio, *place = box
    low, high = _ERASED_SHARES
    area = (low + share * (high - low)) * tf.cast(tf.size(image[..., 0]), tf.float32)
    ratio = tf.exp((2 * ratio - 1) * -tf.math.log(_ERASED_RATIO))
    sides = tf.cast(tf.round(tf.stack([tf.sqrt(area * ratio), tf.sqrt(area / ratio)])), tf.int32)
    whole = tf.constant(image.shape.as_list()[:2])
    size = tf.clip_by_value(sides, 1, whole)
    noise = _draw(seed, _NOISE, tf.random.stateless_uniform, image.shape, maxval=255.0)
    return erase(image, _place(whole, size, place), size, noise)


def _mirrored(image: tf.Tensor, mirror: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, mirror, False]))


def _window(size: tf.Tensor, target: tf.Tensor, shorter: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Corner and size of the window in an image that is not scaled yet."""
    pixels = tf.cast(target * tf.reduce_min(size), tf.float32) / tf.cast(shorter, tf.float32)
    window = tf.clip_by_value(tf.cast(tf.round(pixels), tf.int32), 1, size)
    return _place(size, window, place), window


def _place(size: tf.Tensor, part: tf.Tensor, place: list[tf.Tensor]) -> tf.Tensor:
    """The corner of a part of an image, by two numbers from 0 up to 1."""
    return _part(size - part, tf.stack(place))


def _part(last: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """A whole number from 0 to `last`, each for an equal share of 0 <= share < 1."""
    return tf.minimum(tf.cast(share * tf.cast(last + 1, tf.float32), tf.int32), last)


def _draw(seed: tf.Tensor, number: int, distribution: Any, shape: Sequence[int], **arguments: Any) -> tf.Tensor:
    return distribution(shape, seed + tf.constant([number, 0], seed.dtype), **arguments)
