"""The training images' mean, subtracted pixel by pixel by the network's first layer."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from training.config import Config
from training.data.image_set import ImageSet
from training.data.preprocessing import decode_image
from training.errors import InputError

_BATCH = 32


@keras.saving.register_keras_serializable(package="training")
class MeanSubtraction(keras.layers.Layer):
    """Subtracts a mean image; checkpoints and exports hold it with the weights.

    From images of another size, such as the whole ones of a dense evaluation, each channel's mean is subtracted.

    Args:
        mean_shape: `(height, width, channels)` of the mean.
        offset: Added to all pixels after that.
        **kwargs: `name` and what else `keras.layers.Layer` takes.
    """

    def __init__(self, mean_shape: Sequence[int], offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean_shape = tuple(mean_shape)
        self.offset = offset

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Adds the mean, which starts at 0."""
        self.mean = self.add_weight(shape=self.mean_shape, initializer="zeros", trainable=False, name="mean")

    def call(self, images: Any) -> Any:
        """Subtracts it."""
        same = tuple(images.shape[1:3]) == self.mean_shape[:2]
        mean = self.mean if same else ops.mean(self.mean, axis=(0, 1))
        return images - (mean - self.offset)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "mean_shape": self.mean_shape, "offset": self.offset}


def mean_image(images: ImageSet, config: Config, image_shape: tuple[int, int, int]) -> np.ndarray:
    """The mean of the training split's images as an evaluation crops them; unreadable ones do not count.

    Rounded to 1/256 of a level: each worker computes the mean, and their processors may differ in the last digits.

    Returns:
        float32 array of the image's shape.

    Raises:
        InputError: No image can be read.
    """

    def decode(reference: tf.Tensor, label: tf.Tensor, name: tf.Tensor) -> tf.Tensor:
        return decode_image(images.load(reference), image_shape, config.test_scale)

    references = images.references(config.train_split)
    batches = references.map(decode, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().batch(_BATCH)
    start = (tf.zeros(image_shape, tf.float64), tf.constant(0, tf.int64))

    def add(state: tuple[tf.Tensor, tf.Tensor], batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        total, count = state
        return total + tf.reduce_sum(tf.cast(batch, tf.float64), axis=0), count + tf.shape(batch, tf.int64)[0]

    total, count = (value.numpy() for value in batches.reduce(start, add))
    if not count:
        raise InputError(f"no image of {config.train_split} can be read: there is no mean to subtract")
    rounded: np.ndarray = (np.round(total / count * 256) / 256).astype(np.float32)
    return rounded


def set_mean(model: keras.Model, mean: np.ndarray) -> None:
    """Gives a network whose first layer subtracts a mean that mean."""
    (layer,) = (layer for layer in model.layers if isinstance(layer, MeanSubtraction))
    layer.mean.assign(mean)
