"""What a config describes, built: data, devices, network, optimizer."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from training.batch import Batch
from training.config import Config
from training.data.augmentation import check_augmentation
from training.data.datasets import open_images_of
from training.data.image_set import ImageSet
from training.data.mean import mean_image, set_mean
from training.data.pipeline import evaluation_batches, repeated_without_end, steps_per_epoch, train_batches
from training.data.unreadable import too_many_unreadable
from training.distribute.strategy import own_replicas
from training.errors import InputError
from training.network import make_network
from training.step.moving_average import MovingAverage
from training.step.steps import Step, make_evaluation_step, make_train_step
from training.step.update import MomentumSGD, make_optimizer

_OUT_OF_RANGE = "label out of range"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment, ready to be trained from its first weights or from those of a checkpoint."""

    config: Config
    strategy: tf.distribute.Strategy
    images: ImageSet
    image_shape: tuple[int, int, int]
    model: keras.Model
    optimizer: MomentumSGD
    average: MovingAverage | None

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds beside the model."""
        return {"optimizer": self.optimizer} | ({"average": self.average} if self.average else {})

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every training image once."""
        return steps_per_epoch(self.images.num_examples(self.config.train_split), self.config.batch_size)

    def train_step(self) -> Step:
        """The function that takes a distributed batch and moves the weights."""
        return make_train_step(self.strategy, self.model, self.optimizer, self.config, self.average)

    def evaluation_step(self) -> Step:
        """The function that judges a distributed batch."""
        return make_evaluation_step(self.strategy, self.model)

    def train_batches(self, step: int) -> Iterable[Batch]:
        """Endless distributed batches from a step on; from the first, the network is given the images' mean before."""
        if self.config.subtract_mean and step == 0:
            set_mean(self.model, mean_image(self.images, self.config, self.image_shape))
        return self._distributed(partial(train_batches, start_step=step), "step", step + 1)

    def validation_batches(self) -> Iterable[Batch]:
        """The validation split in distributed batches, `num_validation_batches` of them, again and again."""

        def endless(*arguments: Any, **keywords: Any) -> tf.data.Dataset:
            return repeated_without_end(evaluation_batches(*arguments, **keywords))

        return self._distributed(endless, f"batch of {self.config.validation_split}", 1)

    @property
    def num_validation_batches(self) -> int:
        """Batches that hold each validation image once."""
        return steps_per_epoch(self.images.num_examples(self.config.validation_split), self.config.batch_size)

    def probe_images(self) -> tf.Tensor:
        """Images to look at the network with, always the same: a device's share of the first validation batch."""
        replicas = self.strategy.num_replicas_in_sync
        return next(iter(evaluation_batches(self.images, self.config, self.image_shape, replicas)))["images"]

    def _distributed(self, make: Callable[..., tf.data.Dataset], name: str, first: int) -> Iterable[Batch]:
        """Each worker's own batches, with their labels checked; one with a wrong label has a name and a number."""
        num_classes = len(self.images.labels)

        def own_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            own = own_replicas(context)
            batches = make(self.images, self.config, self.image_shape, context.num_replicas_in_sync, own_replicas=own)
            return batches.enumerate().map(partial(check, len(own)))

        def check(num_own: int, index: tf.Tensor, batch: Batch) -> Batch:
            labels = batch["labels"]
            wrong = tf.boolean_mask(labels, (labels < 0) | (labels >= num_classes))
            tf.debugging.Assert(tf.size(wrong) == 0, [_OUT_OF_RANGE, wrong, name, first + index // num_own])
            return batch

        return self.strategy.distribute_datasets_from_function(own_batches)


def build_experiment(config: Config, strategy: tf.distribute.Strategy, images: ImageSet | None = None) -> Experiment:
    """Builds what a config describes.

    Args:
        config: The experiment.
        strategy: The devices. Workers of one cluster must all build at once, for they agree on the first weights.
        images: The config's data, if it is open already.

    Raises:
        InputError: The data is not there or does not fit the rest, or a batch has fewer images than there are devices.
    """
    images = images or open_images_of(config)
    config = config.in_steps(steps_per_epoch(images.num_examples(config.train_split), config.batch_size))
    image_shape = images.input_shape(config.image_size)
    for split in (config.train_split, config.validation_split, config.test_split):
        images.num_examples(split)
    check_augmentation(config, image_shape)
    if config.batch_size < strategy.num_replicas_in_sync:
        raise InputError(
            f"batch_size is {config.batch_size}, but must be at least {strategy.num_replicas_in_sync}, an image for "
            "each device"
        )
    with strategy.scope():
        model = make_network(config, image_shape, len(images.labels))
        optimizer = make_optimizer(config, model)
        average = MovingAverage(model, config.ema_decay) if config.ema_decay else None
    return Experiment(config, strategy, images, image_shape, model, optimizer, average)


def data_error(error: tf.errors.InvalidArgumentError, experiment: Experiment) -> InputError | None:
    """What to tell of an error, if it is that of a label out of range, or of too many images that can't be read."""
    unreadable = too_many_unreadable(error)
    if unreadable:
        return InputError(unreadable)
    found = re.search(rf"\[{_OUT_OF_RANGE}\] \[(-?\d+).*?\] \[(.+?)\] \[(\d+)\]", str(error))
    if not found:
        return None
    label, name, number = found.groups()
    num_classes = len(experiment.images.labels)
    return InputError(
        f"a label is {label} in {name} {number}, but {experiment.config.dataset} has {num_classes} classes, 0 to "
        f"{num_classes - 1}: mend the data, or name a split with labels"
    )
