"""RandAugment: a few of eleven transformations, drawn at random for each image; Keras has the transformations."""

from collections.abc import Callable
from functools import partial

import keras
import tensorflow as tf

_CHOICES, _CALL, _SOLARIZED = (number << 48 for number in range(5, 8))  # as in training.data.augmentation
_LEVELS = (0, 255)


class RandAugment:
    """Sends images through `num_ops` of its `operations`, all equally likely.

    Ten of them are layers of `keras.layers.RandAugment`, which itself draws from a state of its own, computes all of
    them for every image and turns photos upside down; here what is drawn follows from the image's seed, only what is
    drawn is computed, and magnitudes are those of the paper's code. To be made outside of graphs, for each layer makes
    a variable.

    Args:
        num_ops: Transformations of an image, one after the other.
        magnitude: The largest magnitude of those that have one, above 0 and up to 1, which is the paper's 10.

    Reference:
        Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", 2020.
    """

    def __init__(self, num_ops: int, magnitude: float) -> None:
        solarization = partial(_solarized, lowest=255 * (1 - magnitude))
        self.operations: list[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = [
            *(partial(transform, layer, salt=_CALL) for layer in _layers(magnitude)),
            solarization,  # of Keras's layer only the highest threshold can be set, not the lowest
        ]
        self._num_ops = num_ops

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The image after its transformations.

        Args:
            image: float32 `(height, width, 3)`, red, green, blue in 0..255.
            seed: int64 `(2,)`.
        """
        choices = tf.random.stateless_uniform(
            [self._num_ops], seed + tf.constant([_CHOICES, 0], seed.dtype), 0, len(self.operations), tf.int32
        )
        for number, choice in enumerate(tf.unstack(choices)):
            draws = seed + tf.constant([0, number << 48], seed.dtype)
            branches = [partial(operation, image, draws) for operation in self.operations]
            image = tf.ensure_shape(tf.switch_case(choice, branches), image.shape)
        return image


def transform(layer: keras.layers.Layer, image: tf.Tensor, seed: tf.Tensor, salt: int) -> tf.Tensor:
    """Sends one image through a layer of random augmentation, whose draws follow from the seed.

    Args:
        layer: One of Keras's that transforms images.
        image: float32 `(height, width, channels)`.
        seed: int64 `(2,)`.
        salt: Added to the seed's first number.
    """
    with seeded(layer, seed + tf.constant([salt, 0], seed.dtype)):
        return tf.cast(layer(image[None], training=True)[0], image.dtype)


def seeded(layer: keras.layers.Layer, seed: tf.Tensor) -> keras.StatelessScope:
    """The scope in which a layer's generator, if it has one, starts from a seed, and its variable does not change."""
    if not hasattr(layer, "generator"):
        return keras.StatelessScope()
    state = layer.generator.state
    # Mixed, for the generator counts on from it, and seeds of two images may follow one another.
    start = tf.random.stateless_uniform([2], seed, None, None, tf.int64)
    return keras.StatelessScope(state_mapping=[(state, tf.cast(start, state.dtype))])


def _layers(magnitude: float) -> list[keras.layers.Layer]:
    enhanced = 0.9 * magnitude
    fewest_bits = 8 - round(4 * magnitude)
    colours = {"value_range": _LEVELS, "dtype": "float32"}
    return [
        keras.layers.RandomShear(x_factor=0.3 * magnitude, y_factor=0.3 * magnitude, dtype="float32"),
        keras.layers.RandomTranslation(height_factor=0.45 * magnitude, width_factor=0.45 * magnitude, dtype="float32"),
        keras.layers.RandomRotation(factor=magnitude * 30 / 360, dtype="float32"),
        keras.layers.RandomBrightness(factor=enhanced, **colours),
        keras.layers.RandomColorDegeneration(factor=enhanced, **colours),
        keras.layers.RandomContrast(factor=enhanced, **colours),
        keras.layers.RandomSharpness(factor=(0.5 - enhanced / 2, 0.5 + enhanced / 2), **colours),
        keras.layers.RandomPosterization(factor=(fewest_bits, 8), **colours),
        keras.layers.AutoContrast(**colours),
        keras.layers.Equalization(**colours),
    ]


def _solarized(image: tf.Tensor, seed: tf.Tensor, lowest: float) -> tf.Tensor:
    """Inverts the levels from a random threshold up."""
    threshold = tf.random.stateless_uniform([], seed + tf.constant([_SOLARIZED, 0], seed.dtype), lowest, 255.0)
    return tf.where(image < threshold, image, 255 - image)
