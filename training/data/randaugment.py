"""RandAugment: a few of eleven transformations, drawn at random for each image; Keras has the transformations."""

from functools import partial

import keras
import tensorflow as tf

_CHOICES = 5 << 48  # added to an image's seed, as training.data.augmentation does for its own draws
_CALL = 6 << 48
_LEVELS = (0, 255)


class Policy:
    """Sends images through `num_ops` transformations, each one of `operations`, all equally likely.

    They are the layers of `keras.layers.RandAugment`, which itself draws from a state of its own, computes all of them
    for every image and turns photos upside down; here what is drawn follows from the image's seed, only what is drawn
    is computed, and strengths are those of the paper's code. To be made outside of graphs, for each layer makes a
    variable.

    Args:
        num_ops: Transformations of an image, one after the other.
        strength: The largest strength of those that have one, above 0 and up to 1, RandAugment's largest magnitude.

    Reference:
        Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", 2020.
    """

    def __init__(self, num_ops: int, strength: float) -> None:
        self.operations = _operations(strength)
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
            draws = seed + tf.constant([_CALL, number << 48], seed.dtype)
            branches = [partial(_transformed, operation, image, draws) for operation in self.operations]
            image = tf.ensure_shape(tf.switch_case(choice, branches), image.shape)
        return image


class _SeedsOf(keras.random.SeedGenerator):
    """What Keras asks for seeds: they follow from one tensor, where Keras's own move a variable on."""

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed = seed  # without the parent's, which would make the variable
        self._num_drawn = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """The next seed, int64 `(2,)`."""
        self._num_drawn += 1
        return tf.random.fold_in(self._seed, self._num_drawn)


def _operations(strength: float) -> list[keras.layers.Layer]:
    layers = keras.layers
    solarization = layers.Solarization(value_range=_LEVELS)
    solarization.threshold_factor = (255 * (1 - strength), 1.0)  # Keras multiplies the second by 255, not the first
    enhanced = 0.9 * strength
    fewest_bits = 8 - round(4 * strength)
    return [
        layers.RandomShear(x_factor=0.3 * strength, y_factor=0.3 * strength),
        layers.RandomTranslation(height_factor=0.45 * strength, width_factor=0.45 * strength),
        layers.RandomRotation(factor=strength * 30 / 360),
        layers.RandomBrightness(factor=enhanced, value_range=_LEVELS),
        layers.RandomColorDegeneration(factor=enhanced, value_range=_LEVELS),
        layers.RandomContrast(factor=enhanced, value_range=_LEVELS),
        layers.RandomSharpness(factor=(0.5 - enhanced / 2, 0.5 + enhanced / 2), value_range=_LEVELS),
        layers.RandomPosterization(factor=(fewest_bits, 8), value_range=_LEVELS),
        solarization,
        layers.AutoContrast(value_range=_LEVELS),
        layers.Equalization(value_range=_LEVELS),
    ]


def _transformed(operation: keras.layers.Layer, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    images = image[None]
    transformation = operation.get_random_transformation(images, training=True, seed=_SeedsOf(seed))
    return tf.cast(operation.transform_images(images, transformation, training=True)[0], image.dtype)
