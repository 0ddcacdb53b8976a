"""The network and the optimizer that a config describes."""

import contextlib
from collections.abc import Iterator

import keras

from keras_prelu.networks import small_network
from training.averages import MovingAverage
from training.checkpoint import Checkpoints
from training.config import Config
from training.errors import InputError
from training.optimizer import make_optimizer as make_optimizer
from training.run import Run


def make_network(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the network, from images in 0..255 to logits.

    Raises:
        InputError: The config's network does not fit the images.
    """
    try:
        with _dtype_policy(config.precision):
            return small_network(
                image_shape,
                num_classes,
                config.filters,
                config.convolutions,
                config.rectifier,
                dropout=config.dropout,
                seed=config.seed,
            )
    except ValueError as error:
        raise InputError(str(error)) from None


def load_network(run: Run) -> keras.Model:
    """The run's network with the weights of its newest checkpoint, averaged over the steps if the run averages them.

    Raises:
        InputError: The folder holds no run, or none that has saved a checkpoint.
    """
    config, labels, image_shape = run.read()
    model = make_network(config, image_shape, len(labels))
    average = MovingAverage(model, config.average) if config.average else None
    parts = {"average": average} if average else {}
    if Checkpoints(run.checkpoints, model, **parts).restore() == 0:
        raise InputError(f"{run.folder} holds no checkpoint yet; `fit` with the same --workdir saves one when it ends")
    if average:
        average.copy_to(model)
    return model


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
