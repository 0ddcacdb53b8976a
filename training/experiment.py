"""What a config describes, built: data, devices, network, optimizer."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import keras
import tensorflow as tf

from training.config import Config
from training.datasets import ImageSet, open_image_set
from training.errors import InputError
from training.model import make_network, make_optimizer
from training.pipeline import Batch, evaluation_batches, steps_per_epoch, train_batches

_LABEL = "a label out of range"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment, ready to be trained from its first weights or from those of a checkpoint."""

    config: Config
    strategy: tf.distribute.Strategy
    images: ImageSet
    image_shape: tuple[int, int, int]
    model: keras.Model
    optimizer: keras.Optimizer

    @property
    def parts(self) -> dict[str, keras.Optimizer]:
        """What a checkpoint holds beside the model."""
        return {"optimizer": self.optimizer}

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every training image once."""
        return steps_per_epoch(self.images.num_examples(self.config.train_split), self.config.batch_size)

    def train_batches(self, step: int) -> Iterable[Batch]:
        """Endless distributed batches from a step on; an InputError where a label is out of range."""
        return self._batches(partial(train_batches, start_step=step), lambda index: f"step {step + index}")

    def test_batches(self) -> Iterable[Batch]:
        """The test split in distributed batches; an InputError where a label is out of range."""
        return self._batches(evaluation_batches, lambda index: f"batch {index} of {self.config.test_split}")

    def _batches(self, make: Callable[..., tf.data.Dataset], name: Callable[[int], str]) -> Iterable[Batch]:
        replicas = self.strategy.num_replicas_in_sync
        batches = self.strategy.distribute_datasets_from_function(
            lambda _: self._checked(make(self.images, self.config, self.image_shape, replicas))
        )
        return _Batches(batches, lambda error, index: self._label_error(error, name(index)))

    def _checked(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        num_classes = len(self.images.labels)

        def check(batch: Batch) -> Batch:
            labels = batch["labels"]
            wrong = (labels < 0) | (labels >= num_classes)
            tf.debugging.Assert(~tf.reduce_any(wrong), [_LABEL, tf.boolean_mask(labels, wrong)])
            return batch

        return batches.map(check)

    def _label_error(self, error: tf.errors.InvalidArgumentError, where: str) -> Exception:
        found = re.search(rf"\[{_LABEL}\] \[(-?\d+)", str(error))
        if not found:
            return error
        num_classes = len(self.images.labels)
        return InputError(
            f"a label is {found[1]} in {where}, but {self.config.dataset} has {num_classes} classes, 0 to "
            f"{num_classes - 1}: mend the data, or name a split with labels"
        )


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Batches whose errors are told in this package's way."""

    batches: Iterable[Batch]
    translate: Callable[[tf.errors.InvalidArgumentError, int], Exception]  # of the error and the batch's number

    def __iter__(self) -> Iterator[Batch]:
        num_read = 0
        try:
            for batch in self.batches:
                num_read += 1
                yield batch
        except tf.errors.InvalidArgumentError as error:
            raise self.translate(error, num_read + 1) from None


def build_experiment(config: Config, strategy: tf.distribute.Strategy) -> Experiment:
    """Builds what a config describes.

    Raises:
        InputError: The data is not there or does not fit the rest, or a batch has fewer images than there are devices.
    """
    images = open_image_set(config.dataset, config.data_dir)
    image_shape = images.input_shape(config.image_size)
    for split in (config.train_split, config.test_split):
        images.num_examples(split)
    if config.batch_size < strategy.num_replicas_in_sync:
        raise InputError(
            f"batch_size is {config.batch_size}, but must be at least {strategy.num_replicas_in_sync}, an image for "
            "each device"
        )
    with strategy.scope():
        model = make_network(config, image_shape, len(images.labels))
        optimizer = make_optimizer(config, model)
    return Experiment(config, strategy, images, image_shape, model, optimizer)
