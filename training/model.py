"""The network and the optimizer that a config describes."""

import keras

from keras_prelu.networks import small_network
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
        return small_network(
            image_shape, num_classes, config.filters, config.convolutions, config.rectifier, seed=config.seed
        )
    except ValueError as error:
        raise InputError(str(error)) from None


def load_network(run: Run) -> keras.Model:
    """The run's network with the weights of its newest checkpoint.

    Raises:
        InputError: The folder holds no run, or none that has saved a checkpoint.
    """
    config, labels, image_shape = run.read()
    model = make_network(config, image_shape, len(labels))
    if Checkpoints(run.checkpoints, model).restore() == 0:
        raise InputError(f"{run.folder} holds no checkpoint yet; `fit` with the same --workdir saves one when it ends")
    return model
