"""The models that the server's benchmarks serve, and a request to each."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_prelu.networks.small import small_network
from training.classifier import Classifier
from training.config import Config
from training.export.signatures import make_signatures, save_model, signature

SEED = 0


@dataclass(frozen=True)
class Sample:
    """A model's directory, one of its signatures, and one example for it, without the dimension of the batch."""

    base_path: Path
    input_name: str
    example: np.ndarray
    signature_name: str = "serving_default"

    @property
    def batch(self) -> np.ndarray:
        """A request's array."""
        return self.example[None]


def save_perceptron(base_path: Path) -> Sample:
    """784-256-10: small, with 16 kB of JSON a request."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(10, "softmax")])
    run = signature(lambda x: {"y": model(x)}, "x", tf.TensorSpec([None, 784], tf.float32))
    save_model(base_path / "1", {"serving_default": run}, [model])
    return Sample(base_path, "x", np.random.default_rng(SEED).random(784, np.float32))


def save_network(base_path: Path, megabytes: int = 0) -> Sample:
    """Three stages of three 3x3 convolutions for images of 32x32, with the signatures of every export.

    It may have so many MiB of variables that are restored and never used.
    """
    config = Config(dataset="image_folder", image_size=32, filters=(32, 64, 128), convolutions=3)
    shape = (32, 32, 3)
    keras.utils.set_random_seed(SEED)
    network = small_network(shape, 10, filters=config.filters, convolutions=config.convolutions)
    labels = tuple(f"class {number}" for number in range(10))
    unused = keras.Sequential([keras.Input((1024,)), keras.layers.Dense(256 * max(1, megabytes), use_bias=False)])
    networks = [network, unused] if megabytes else [network]
    save_model(base_path / "1", make_signatures(Classifier(network, config, labels, shape)), networks)
    return Sample(base_path, "images", np.random.default_rng(SEED).integers(0, 256, shape).astype(np.float32))


def save_photos(base_path: Path) -> tuple[Sample, Sample]:
    """What a photo costs on its way: the mean of 224x224x3 numbers, and of the pixels of a JPEG."""
    pixels = np.random.default_rng(SEED).random((224, 224, 3), np.float32)
    jpeg = tf.io.encode_jpeg(tf.cast(tf.image.resize(pixels[::8, ::8], (224, 224)) * 255, tf.uint8)).numpy()

    def mean(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"mean": tf.reduce_mean(images, axis=(1, 2, 3))}

    def decoded_mean(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        decode = lambda each: tf.cast(tf.io.decode_jpeg(each, channels=3), tf.float32)  # noqa: E731
        spec = tf.TensorSpec([None, None, 3], tf.float32)
        return mean(tf.map_fn(decode, image_bytes, fn_output_signature=spec))

    save_model(
        base_path / "1",
        {
            "serving_default": signature(mean, "images", tf.TensorSpec([None, 224, 224, 3], tf.float32)),
            "jpeg": signature(decoded_mean, "image_bytes", tf.TensorSpec([None], tf.string)),
        },
        [],
    )
    return Sample(base_path, "images", pixels), Sample(base_path, "image_bytes", np.array(jpeg, object), "jpeg")
