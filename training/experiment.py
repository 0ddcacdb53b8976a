"""An experiment, built from its config: data, devices, network, optimizer."""

import contextlib
import dataclasses
import itertools
import pathlib
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
from training.data.mixing import check_mixing
from training.data.pipeline import evaluation_batches, repeated_without_end, steps_per_epoch, train_batches
from training.data.unreadable import too_many_unreadable
from training.distribute.strategy import input_options, own_replicas
from training.errors import InputError
from training.network import freeze, load_initial_weights, make_network, set_frozen
from training.run.folder import Run
from training.step.evaluation import evaluate
from training.step.moving_average import MovingAverage
from training.step.schedules import Improvement
from training.step.steps import TOP, Step, make_evaluation_step, make_train_step
from training.step.update import Updater, make_updater

_OUT_OF_RANGE = "label out of range"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment, ready to be trained from its first weights or from those of a checkpoint.

    Attributes:
        config: With `steps` resolved, where it counts epochs.
        frozen: The layers that `freeze` names.
        improvement: Follows the `best_metric`.
        mean_file: Where the training images' mean is kept, if anywhere.
    """

    config: Config
    strategy: tf.distribute.Strategy
    images: ImageSet
    image_shape: tuple[int, int, int]
    model: keras.Model
    frozen: list[keras.Layer]
    updater: Updater
    average: MovingAverage | None
    improvement: Improvement
    mean_file: pathlib.Path | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds beside the model."""
        parts = {"optimizer": self.updater, "improvement": self.improvement}
        return parts | ({"average": self.average} if self.average else {})

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every training image once."""
        return steps_per_epoch(self.images.num_examples(self.config.train_split), self.config.batch_size)

    def freeze(self, step: int) -> None:
        """Freezes or unfreezes the layers that `freeze` names, by the number of steps taken."""
        set_frozen(self.frozen, not 0 < self.config.unfreeze_step <= step)

    def load_mean(self, step: int) -> None:
        """Before the first step, gives a network that subtracts it the training images' mean; checkpoints hold it."""
        if self.config.subtract_mean and step == 0:
            set_mean(self.model, mean_image(self.images, self.config, self.image_shape, self.mean_file))

    def train_batches(self, step: int) -> Iterable[Batch]:
        """Endless distributed batches from a step on."""
        return self._distributed(partial(train_batches, start_step=step), "step", step + 1)

    def train_step(self) -> Step:
        """The function that takes a distributed batch and moves the weights that are not frozen now."""
        return make_train_step(self.strategy, self.model, self.updater, self.config, self.average)

    def evaluation(self, split: str) -> Callable[[], dict[str, float]]:
        """Makes the function that evaluates the network, with the averaged weights where there are any."""

        def endless(*arguments: Any, **keywords: Any) -> tf.data.Dataset:
            return repeated_without_end(evaluation_batches(*arguments, **keywords, split_name=split))

        step = make_evaluation_step(self.strategy, self.model)
        batches = iter(self._distributed(endless, f"batch of {split}", 1))
        count = steps_per_epoch(self.images.num_examples(split), self.config.batch_size)

        def evaluation() -> dict[str, float]:
            with self.average.applied() if self.average else contextlib.nullcontext():
                return evaluate(step, itertools.islice(batches, count))

        return evaluation

    def observe(self, figures: dict[str, float]) -> bool:
        """Tells an evaluation's figures to those who wait for them, and returns whether they are the best so far."""
        if self.updater.plateau:
            self.updater.plateau.observe(1 - figures["accuracy"])
        return self.improvement.observe(figures[self.config.best_metric])

    def is_finished(self, step: int) -> bool:
        """Whether no step is left, or the evaluations have not improved for too long."""
        patience = self.config.early_stopping
        return step >= self.config.steps or 0 < patience <= int(self.improvement.since.numpy())

    def probe_images(self) -> tf.Tensor:
        """Images to look at the network with, always the same: a device's share of the first validation batch."""
        replicas = self.strategy.num_replicas_in_sync
        return next(iter(evaluation_batches(self.images, self.config, self.image_shape, replicas)))["images"]

    def _distributed(self, make: Callable[..., tf.data.Dataset], name: str, first: int) -> Iterable[Batch]:
        """Each worker's own batches, with their labels checked; one with a wrong label has a name and a number."""
        num_classes = len(self.images.labels)

        @tf.autograph.experimental.do_not_convert
        def own_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            own = own_replicas(context)
            batches = make(self.images, self.config, self.image_shape, context.num_replicas_in_sync, own_replicas=own)
            return batches.enumerate().map(partial(check, len(own)))

        def check(num_own: int, index: tf.Tensor, batch: Batch) -> Batch:
            labels = batch["labels"]
            wrong = tf.boolean_mask(labels, (labels < 0) | (labels >= num_classes))
            tf.debugging.Assert(tf.size(wrong) == 0, [_OUT_OF_RANGE, wrong, name, first + index // num_own])
            return batch

        return self.strategy.distribute_datasets_from_function(own_batches, input_options(self.strategy))


def build_experiment(
    config: Config, strategy: tf.distribute.Strategy, images: ImageSet | None = None, run: Run | None = None
) -> Experiment:
    """Builds what a config describes.

    Args:
        config: The experiment.
        strategy: The devices. Workers of one cluster must all build at once, for they agree on the first weights.
        images: The config's data, if it is open already.
        run: The run's folder. Where it has a checkpoint, no file of pretrained weights is read.

    Raises:
        InputError: The data is not there or does not fit the rest, the network does not, or a batch has fewer images
            than there are devices.
    """
    images = images or open_images_of(config)
    image_shape = images.input_shape(config.image_size)
    for split in (config.train_split, config.validation_split, config.test_split):
        images.num_examples(split)
    config = config.in_steps(steps_per_epoch(images.num_examples(config.train_split), config.batch_size))
    check_augmentation(config, image_shape)
    check_mixing(config, len(images.labels), strategy.num_replicas_in_sync)
    if config.best_metric == "top5_accuracy" and len(images.labels) <= TOP:
        raise InputError(
            f"best_metric is top5_accuracy, but {config.dataset} has {len(images.labels)} classes: take accuracy"
        )
    if config.batch_size < strategy.num_replicas_in_sync:
        raise InputError(
            f"batch_size is {config.batch_size}, but must be at least {strategy.num_replicas_in_sync}, an image for "
            "each device"
        )
    starts = run is None or not run.has_checkpoint
    with strategy.scope():
        model = make_network(
            config, image_shape, len(images.labels), pretrained=starts, file=run.network if run else None
        )
        if config.init_from and starts:
            print(f"training: {load_initial_weights(model, config.init_from)}", flush=True)
        frozen = freeze(model, config)
        updater = make_updater(config, model)
        average = MovingAverage(model.trainable_variables, config.ema_decay) if config.ema_decay else None
    improvement = Improvement(larger_is_better=config.best_metric != "loss")
    return Experiment(
        config, strategy, images, image_shape, model, frozen, updater, average, improvement, run.mean if run else None
    )


def data_error(error: tf.errors.InvalidArgumentError, experiment: Experiment) -> InputError | None:
    """The message for an error about a label out of range, or about too many unreadable images; None for others."""
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
