"""The training images' mean, subtracted pixel by pixel by the network's first layer."""

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tqdm import tqdm

from training.config import Config
from training.data.image_set import ImageSet
from training.data.parallel import CALLS
from training.data.preprocessing import decode_image
from training.errors import InputError
from training.run.folder import write_whole

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


@tf.autograph.experimental.do_not_convert
def mean_image(
    images: ImageSet, config: Config, image_shape: tuple[int, int, int], path: pathlib.Path | None = None
) -> np.ndarray:
    """The mean of the training split's images as an evaluation crops them; unreadable ones do not count.

    Args:
        images: The set; its `train_split` is read, with a progress bar.
        config: `train_split` and `test_scale` are read.
        image_shape: `(height, width, channels)` that the network sees.
        path: A `.npy` file: where it is there the mean is read from it, else written to it.

    Returns:
        float32 array of the image's shape.

    Raises:
        InputError: No image can be read.
    """
    if path is not None and path.is_file():
        stored: np.ndarray = np.load(path)
        return stored
    split = images.open(config.train_split)

    def decode(index: tf.Tensor, string: tf.Tensor) -> tf.Tensor:
        return decode_image(split.load(index, string), image_shape, config.test_scale)

    decoded = split.examples().map(decode, num_parallel_calls=CALLS).ignore_errors().batch(_BATCH)
    total, count = np.zeros(image_shape), 0
    with tqdm(total=split.num_examples, desc="mean image", unit=" images", disable=None, leave=False) as bar:
        for batch in decoded.prefetch(2).as_numpy_iterator():
            total += batch.sum(axis=0, dtype=np.float64)
            count += len(batch)
            bar.update(len(batch))
    if not count:
        raise InputError(f"no image of {config.train_split} can be read: there is no mean to subtract")
    mean: np.ndarray = (total / count).astype(np.float32)
    if path is not None:
        write_whole(path, lambda file: np.save(file, mean))
    return mean


def set_mean(model: keras.Model, mean: np.ndarray) -> None:
    """Gives a network whose first layer subtracts a mean that mean."""
    (layer,) = (layer for layer in model.layers if isinstance(layer, MeanSubtraction))
    layer.mean.assign(mean)
