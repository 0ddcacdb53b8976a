"""What is done to training images at random. All of it follows from a seed: the same seed gives the same image."""

from functools import partial

import tensorflow as tf

from training.config import Config
from training.errors import InputError
from training.preprocessing import REDUCTIONS, decode_any, num_halvings

# What each draw adds to an image's seed.
_SCALE, _PLACE, _COLOUR, _ERASED, _BOX, _NOISE = range(1, 7)

# Standard deviations, for pixels in 0..1, and directions of the principal components of ImageNet's colours (red, green,
# blue), as https://github.com/facebookarchive/fb.resnet.torch has them in datasets/imagenet.lua.
COLOUR_DEVIATIONS = (0.2175, 0.0188, 0.0045)
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
    if config.pca_colour and channels != 3:
        raise InputError(f"pca_colour alters red, green and blue, but the images of {config.dataset} have {channels}")


def augment(image: tf.Tensor, seed: tf.Tensor, config: Config) -> tf.Tensor:
    """Shifts an image, mirrors it half of the time, alters its colours and erases a part, as far as the config asks.

    Args:
        image: float32 `(height, width, channels)`, values 0..255.
        seed: int64 `(2,)`.
        config: `crop_padding`, `flip`, `pca_colour` and `erase` are read.

    Returns:
        Tensor of the image's shape. Altered colours may lie beyond 0..255.
    """
    shape = image.shape
    if config.crop_padding:
        padding = [[config.crop_padding] * 2, [config.crop_padding] * 2, [0, 0]]
        image = tf.image.stateless_random_crop(tf.pad(image, padding), shape, seed)
    if config.flip:
        image = tf.image.stateless_random_flip_left_right(image, seed + tf.constant([0, 1], seed.dtype))
    if config.pca_colour:
        image = shift_colours(image, _draw(seed, _COLOUR, tf.random.stateless_normal, [3], stddev=config.pca_colour))
    if config.erase:
        erased = _draw(seed, _ERASED, tf.random.stateless_uniform, []) < config.erase
        image = tf.cond(erased, lambda: _erase_at_random(image, seed), lambda: image)
    return image


def crop_at_random_scale(
    encoded: tf.Tensor, image_shape: tuple[int, int, int], scales: tuple[int, int], seed: tf.Tensor
) -> tf.Tensor:
    """Crops a window at random from an image whose shorter side was scaled to a random length.

    The window is taken out of the source, as so many pixels as make the network's at that scale, and then resized: of
    a JPEG nothing else is decoded. Where the window is more than twice as large as the network's, a JPEG is decoded at
    a fraction of its size and any other image is resized with antialiasing; below that, bilinearly.

    Args:
        encoded: Scalar string, an image of any format that `decode_image` takes.
        image_shape: `(height, width, channels)` of the window.
        scales: Least and largest length of the shorter side, both drawn too; neither below the window's sides.
        seed: int64 `(2,)`.

    Returns:
        float32 tensor of that shape, values 0..255.

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, section 3.1.
    """
    low, high = scales
    shorter = _draw(seed, _SCALE, tf.random.stateless_uniform, [], minval=low, maxval=high + 1, dtype=tf.int32)
    place = _draw(seed, _PLACE, tf.random.stateless_uniform, [2])
    target = tf.constant(image_shape[:2])

    def other() -> tf.Tensor:
        image = decode_any(encoded, image_shape[2])
        return _cut(image, *_window(tf.shape(image)[:2], target, shorter, place))

    def jpeg() -> tf.Tensor:
        size = tf.io.extract_jpeg_shape(encoded)[:2]
        halvings = num_halvings(tf.cast(shorter / tf.reduce_min(size), tf.float32))
        return tf.switch_case(halvings, [partial(reduced_jpeg, -(-size // ratio), ratio) for ratio in (1, *REDUCTIONS)])

    def reduced_jpeg(size: tf.Tensor, ratio: int) -> tf.Tensor:
        corner, window = _window(size, target, shorter, place)
        # The outermost pixels that are decoded would lack their neighbours' colours: one more is, on each side.
        start, stop = tf.maximum(corner - 1, 0), tf.minimum(corner + window + 1, size)
        area = tf.concat([start, stop - start], axis=0)
        image = tf.io.decode_and_crop_jpeg(encoded, area, channels=image_shape[2], ratio=ratio)
        return _cut(image, corner - start, window)

    image = tf.cond(tf.io.is_jpeg(encoded), jpeg, other)
    image.set_shape([None, None, image_shape[2]])
    return _resize(image, image_shape[:2])


def shift_colours(image: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    """Adds ImageNet's principal colours to every pixel.

    Args:
        image: float32 `(height, width, 3)`, red, green, blue in 0..255.
        amounts: float32 `(3,)`, in the components' standard deviations, the largest component first.

    Reference:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 4.1.
    """
    directions = tf.constant(COLOUR_DIRECTIONS) * tf.constant(COLOUR_DEVIATIONS) * 255
    return image + tf.linalg.matvec(directions, amounts)


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


def _erase_at_random(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Random erasing with random values.

    Reference:
        Zhong et al., "Random Erasing Data Augmentation", 2017, algorithm 1; a rectangle that does not fit is cut.
    """
    share, ratio, *place = tf.unstack(_draw(seed, _BOX, tf.random.stateless_uniform, [4]))
    low, high = _ERASED_SHARES
    area = (low + share * (high - low)) * tf.cast(tf.size(image[..., 0]), tf.float32)
    ratio = tf.exp((2 * ratio - 1) * -tf.math.log(_ERASED_RATIO))
    sides = tf.cast(tf.round(tf.stack([tf.sqrt(area * ratio), tf.sqrt(area / ratio)])), tf.int32)
    whole = tf.constant(image.shape.as_list()[:2])
    size = tf.clip_by_value(sides, 1, whole)
    noise = _draw(seed, _NOISE, tf.random.stateless_uniform, image.shape, maxval=255.0)
    return erase(image, _place(whole, size, tf.stack(place)), size, noise)


def _window(size: tf.Tensor, target: tf.Tensor, shorter: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Corner and size of the window in an image that is not scaled yet."""
    pixels = tf.cast(target * tf.reduce_min(size), tf.float32) / tf.cast(shorter, tf.float32)
    window = tf.clip_by_value(tf.cast(tf.round(pixels), tf.int32), 1, size)
    return _place(size, window, place), window


def _place(size: tf.Tensor, part: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The corner of a part of an image, each of those possible for an equal share of 0 <= place < 1."""
    last = size - part
    return tf.minimum(tf.cast(place * tf.cast(last + 1, tf.float32), tf.int32), last)


def _cut(image: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.concat([corner, [0]], axis=0), tf.concat([size, [-1]], axis=0))


def _resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Antialiasing takes five times as long, and tells little between twice the size and once."""
    much_larger = tf.reduce_any(tf.shape(image)[:2] > 2 * tf.constant(size))
    image = tf.cond(
        much_larger, lambda: tf.image.resize(image, size, antialias=True), lambda: tf.image.resize(image, size)
    )
    return tf.ensure_shape(image, [*size, image.shape[2]])


def _draw(seed: tf.Tensor, number: int, distribution, shape, **arguments) -> tf.Tensor:  # type: ignore[no-untyped-def]
    return distribution(shape, tf.random.fold_in(seed, tf.constant(number, seed.dtype)), **arguments)
