"""The network that a config describes."""

import contextlib
from collections.abc import Iterator
from functools import partial

import keras

from keras_prelu.networks.paper import paper_network
from keras_prelu.networks.small import small_network
from training.config import Config
from training.data.mean import MeanSubtraction
from training.errors import InputError


def make_network(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the network, from images in 0..255 to logits; a mean to subtract is 0 until `training.data.mean` sets it.

    Raises:
        InputError: The config's network does not fit the images.
    """
    try:
        with _dtype_policy(config.precision):
            network = _network(config, image_shape, num_classes)
    except ValueError as error:
        raise InputError(str(error)) from None
    if not config.subtract_mean:
        return network
    images = keras.Input(image_shape, name="images")
    # small_network takes 0..255 and centres it itself, the paper's take what is centred
    offset = 127.5 if config.network == "small" else 0.0
    centred = MeanSubtraction(image_shape, offset, dtype="float32", name="mean")(images)
    return keras.Model(images, network.call(centred), name=network.name)  # call: its layers, not it as one layer


def _network(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    if config.network == "small":
        make = partial(small_network, filters=config.filters, convolutions=config.convolutions)
    else:
        make = partial(paper_network, config.network)
    return make(
        input_shape=image_shape,
        num_classes=num_classes,
        rectifier=config.rectifier,
        dropout=config.dropout,
        seed=config.seed,
    )


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
