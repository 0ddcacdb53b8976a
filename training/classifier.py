"""A run's network with everything between an encoded image and scores."""

import dataclasses
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_prelu.keras_internals import flatten_layers
from keras_prelu.networks.fully_convolutional import fully_convolutional
from training.config import Config
from training.data.image_set import ImageSet
from training.data.preprocessing import decode_any, decode_image
from training.errors import InputError
from training.network import freeze, make_network
from training.run.checkpoint import Checkpoints
from training.run.folder import Run
from training.step.moving_average import MovingAverage

_LONGEST = 4  # times the shorter side: a strip of 20,000 x 1 pixels, scaled whole, would take all memory


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Turns an encoded image into a score for each label.

    Attributes:
        network: From images `[N, height, width, channels]` in 0..255 to logits `[N, classes]`.
        config: The config that the network was trained with.
        labels: The classes' names, in the order of the logits.
        image_shape: `(height, width, channels)` that the network was trained on.
        step: The step of the checkpoint that the weights come from.
        checkpoint: `last` or `best`.
    """

    network: keras.Model
    config: Config
    labels: tuple[str, ...]
    image_shape: tuple[int, int, int]
    step: int = 0
    checkpoint: str = "last"

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes an image, a scalar string, to the float32 pixels that the network takes."""
        return decode_image(encoded, self.image_shape, self.config.test_scale)

    def scores(self, images: tf.Tensor) -> tf.Tensor:
        """Softmax scores, float32 `[N, classes]`, of images `[N, height, width, channels]` in 0..255."""
        return tf.nn.softmax(tf.cast(self.network(images, training=False), tf.float32))

    def preprocessing(self) -> str:
        """Describes `decode` to someone who must do the same elsewhere."""
        height, width, _ = self.image_shape
        scale = self.config.test_scale
        scaled = f"scaled to {scale}" if scale else f"scaled until {height}x{width} fits into the image"
        return f"decoded to 0..255; the shorter side {scaled}, antialiased; the centre of {height}x{width} cropped"

    def in_float32(self) -> "Classifier":
        """The same weights, computed in float32 throughout.

        In mixed precision one TensorFlow graph differs from the next in which results it rounds.
        """

        def clone(layer: keras.Operation) -> keras.Operation:
            if not isinstance(layer, keras.Layer):
                return layer  # of keras.ops: it computes in the dtype that it is given
            return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

        if all(layer.compute_dtype == "float32" for layer in flatten_layers(self.network)):
            return self
        cloned = keras.models.clone_model(self.network, clone_function=clone, recursive=True)
        network = keras.Model(cloned.inputs[0], cloned.outputs[0], name=cloned.name)  # not of a list of one input
        network.set_weights(self.network.get_weights())
        return dataclasses.replace(self, network=network)

    def dense(self) -> "DenseClassifier":
        """A classifier of every window of an image of any size, with a copy of the weights.

        Raises:
            InputError: The network cannot be moved over an image.
        """
        try:
            network = fully_convolutional(self.network)
        except ValueError as error:
            raise InputError(f"this network cannot be moved over images of any size: {error}") from None
        return DenseClassifier(network, self.config, self.labels, self.image_shape)


class DenseClassifier(Classifier):
    """Scores an image of any size by the mean over all windows as large as the images of training.

    Its network maps images `[N, H, W, channels]` to logits `[N, rows, columns, classes]`.
    """

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes a whole image, its shorter side scaled to `test_scale` or to the network's size."""
        scale = self.config.test_scale or max(self.image_shape[:2])
        return decode_whole(encoded, self.image_shape[2], scale)

    def scores(self, images: tf.Tensor) -> tf.Tensor:
        """Mean scores, float32 `[N, classes]`, of images that are at least as large as a window."""
        return tf.reduce_mean(super().scores(images), axis=[1, 2])

    def stride(self) -> tuple[int, int]:
        """The distance in pixels between two neighbouring windows, `(down, across)`."""
        far = 1_000_000  # so long a side has far / stride windows, but for a few
        _, rows, columns, _ = self.network.compute_output_shape((None, far, far, self.image_shape[2]))
        return round(far / rows), round(far / columns)


def decode_whole(encoded: tf.Tensor, channels: int, shorter_side: int) -> tf.Tensor:
    """Decodes an image, a scalar string, to float32 pixels in 0..255 and scales its shorter side.

    Of a strip the middle, four times as long as wide, is kept.
    """
    image = decode_any(encoded, channels)
    size = tf.shape(image)[:2]
    kept = tf.minimum(size, _LONGEST * tf.reduce_min(size))
    image = crop_centre(image, kept)
    scaled = tf.cast(tf.round(kept * shorter_side / tf.reduce_min(kept)), tf.int32)
    return tf.image.resize(image, scaled, antialias=True)


def crop_centre(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The middle of an image `[H, W, C]`, of size `(height, width)`."""
    top, left = tf.unstack((tf.shape(image)[:2] - size) // 2)
    return image[top : top + size[0], left : left + size[1]]


def load_network(run: Run, checkpoint: str = "last") -> keras.Model:
    """The network of `load_classifier`."""
    return load_classifier(run, checkpoint).network


def load_classifier(run: Run, checkpoint: str = "last") -> Classifier:
    """The classifier of a run's checkpoint, with weights averaged over the steps if the run averages them.

    Args:
        run: The run.
        checkpoint: `last`, the newest, or `best`, that of the best evaluation.

    Raises:
        InputError: The folder holds no run, no such checkpoint, or one of another network.
    """
    config, labels, image_shape = run.read()
    network = make_network(config, image_shape, len(labels), file=run.network)
    freeze(network, config)
    average = MovingAverage(network.trainable_variables, config.ema_decay) if config.ema_decay else None
    checkpoints = Checkpoints(run.checkpoints, network, **({"average": average} if average else {}))
    step = checkpoints.restore_best() if checkpoint == "best" else checkpoints.restore()
    if step == 0 and checkpoint == "best":
        raise InputError(f"{run.folder} holds no best checkpoint: `fit` saves one when it evaluates; take the last")
    if step == 0:
        raise InputError(f"{run.folder} holds no checkpoint yet; `fit` with the same --workdir saves one when it ends")
    if average:
        average.copy_to_weights()
    return Classifier(network, config, labels, image_shape, step, checkpoint)


def readable_images(
    classifier: Classifier, images: ImageSet, split: str, count: int
) -> Iterator[tuple[bytes, np.ndarray]]:
    """The first readable images of a split, encoded and decoded, at most `count` of them.

    Raises:
        InputError: There is no such split, or no image of it can be read.
    """
    images.num_examples(split)
    decode = tf.autograph.experimental.do_not_convert(lambda encoded, _: (encoded, classifier.decode(encoded)))
    decoded = images.encoded(split).map(decode)
    found = False
    for encoded, pixels in decoded.ignore_errors().take(count).as_numpy_iterator():
        found = True
        yield encoded, pixels
    if not found:
        raise InputError(f"no image of {split} in {images.name} can be read")
