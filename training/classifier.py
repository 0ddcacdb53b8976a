"""A run's network with all that it takes to get from an encoded image to scores."""

import dataclasses
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from training.config import Config
from training.data.datasets import open_images_of
from training.data.preprocessing import decode_image
from training.errors import InputError
from training.network import freeze, make_network
from training.run.checkpoint import Checkpoints
from training.run.folder import Run
from training.step.moving_average import MovingAverage


@dataclasses.dataclass(frozen=True)
class Classifier:
    """From an encoded image to a score for each label.

    Attributes:
        network: From images `[N, height, width, channels]` in 0..255 to logits `[N, classes]`.
        config: What it was trained by.
        labels: The classes' names, in the order of the logits.
        image_shape: `(height, width, channels)`.
    """

    network: keras.Model
    config: Config
    labels: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """The pixels that the network sees of an encoded image, a scalar string."""
        return decode_image(encoded, self.image_shape, self.config.test_scale)

    def scores(self, images: tf.Tensor) -> tf.Tensor:
        """float32 scores `[N, classes]` with the sum 1 each, of images `[N, height, width, channels]` in 0..255."""
        return tf.nn.softmax(tf.cast(self.network(images, training=False), tf.float32))

    def preprocessing(self) -> str:
        """What `decode` does, for a person who must do the same elsewhere."""
        height, width, _ = self.image_shape
        scale = self.config.test_scale
        scaled = f"scaled to {scale}" if scale else f"scaled until {height}x{width} fits into the image"
        return f"decoded to 0..255; the shorter side {scaled}, antialiased; the centre of {height}x{width} cropped"

    def in_float32(self) -> "Classifier":
        """The same weights, computed in float32 throughout.

        In mixed precision one TensorFlow graph differs from the next in which results it rounds.
        """
        if self.config.precision == "float32":
            return self
        config = dataclasses.replace(self.config, precision="float32")
        network = make_network(config, self.image_shape, len(self.labels))
        network.set_weights(self.network.get_weights())
        return dataclasses.replace(self, network=network)


def load_network(run: Run) -> keras.Model:
    """The run's network with the weights of its newest checkpoint, averaged over the steps if the run averages them.

    Raises:
        InputError: The folder holds no run, or none that has saved a checkpoint.
    """
    config, labels, image_shape = run.read()
    model = make_network(config, image_shape, len(labels), file=run.network)
    freeze(model, config)
    average = MovingAverage(model.trainable_variables, config.ema_decay) if config.ema_decay else None
    parts = {"average": average} if average else {}
    if Checkpoints(run.checkpoints, model, **parts).restore() == 0:
        raise InputError(f"{run.folder} holds no checkpoint yet; `fit` with the same --workdir saves one when it ends")
    if average:
        average.copy_to_weights()
    return model


def load_classifier(run: Run) -> Classifier:
    """The classifier that a run's newest checkpoint makes.

    Raises:
        InputError: The folder holds no run, none that has saved a checkpoint, or one of another network.
    """
    network = load_network(run)
    return Classifier(network, *run.read())


def readable_images(
    classifier: Classifier, split: str, count: int, data_dir: str = ""
) -> Iterator[tuple[bytes, np.ndarray]]:
    """The first images of a split of the classifier's own data, encoded and as pixels; unreadable ones are left out.

    Args:
        classifier: What is to see them.
        split: Of its data.
        count: How many, at most.
        data_dir: Where the data lies now; empty for where it lay in training.

    Raises:
        InputError: The data is not there, or no image of the split can be read.
    """
    config = classifier.config
    images = open_images_of(config, data_dir)
    images.num_examples(split)
    decoded = images.encoded(split).map(lambda encoded, _: (encoded, classifier.decode(encoded)))
    found = False
    for encoded, pixels in decoded.ignore_errors().take(count).as_numpy_iterator():
        found = True
        yield encoded, pixels
    if not found:
        raise InputError(f"no image of {split} in {config.dataset} can be read")
