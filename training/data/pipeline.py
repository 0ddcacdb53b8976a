"""tf.data from end to end: shuffled anew each epoch, decoded, augmented, cut into batches for the replicas.

Every batch has one size. The last one of an epoch is filled up with images of weight 0, so that no replica ever goes
without an image and nothing is retraced, while a mean over the weights stays exact.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training.batch import Batch
from training.config import Config
from training.data.augmentation import make_augmentation
from training.data.image_set import ImageSet, Split
from training.data.mixing import check_mixing, mix
from training.data.parallel import CALLS, without_autotune
from training.data.preprocessing import decode_image
from training.data.unreadable import UnreadableImages
from training.errors import InputError

_ROUNDS = 16  # of the shuffle's cipher; with TensorFlow's 4, orders of two epochs correlate by up to 0.6, with 16 by 0
_Prepare = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # from an encoded image and its seed, int64 (2,), to pixels


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches that cover every image once; the last may be partly filled."""
    return -(-num_examples // batch_size)


@tf.autograph.experimental.do_not_convert  # control flow is explicit
def train_batches(
    images: ImageSet,
    config: Config,
    image_shape: tuple[int, int, int],
    num_replicas: int,
    start_step: int,
    own_replicas: range | None = None,
) -> tf.data.Dataset:
    """Endless batches for the replicas, one after the other, from a step of the run on.

    What a step sees follows from the seed and the step's number alone: a run that is resumed, on however many
    devices, sees what it would have seen. The images of earlier steps are not read again.

    Args:
        images: The set; its `train_split` is read.
        config: Batch size, seed and augmentation.
        image_shape: `(height, width, channels)` that the network sees.
        num_replicas: Each step takes this many consecutive batches.
        start_step: Steps already done.
        own_replicas: The consecutive ones that this worker has; no image of another one is read here. None for all.

    Raises:
        InputError: The set cannot be read by index, or its images cannot be mixed as the config asks.
    """
    check_mixing(config, len(images.labels), num_replicas)
    split = images.open(config.train_split)
    rows = _Rows(config.batch_size, num_replicas, own_replicas or range(num_replicas))
    class_weights = _class_weights(config, split, len(images.labels))

    def order(epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        seed = tf.random.stateless_uniform([3], tf.stack([epoch, 0]), None, None, tf.uint32)
        last = tf.constant(split.num_examples - 1, tf.int64)
        return tf.raw_ops.RandomIndexShuffle(index=position, seed=seed, max_index=last, rounds=_ROUNDS)

    def finish(batch: Batch, seeds: tf.Tensor) -> Batch:
        if class_weights is not None:
            known = tf.clip_by_value(batch["labels"], 0, len(images.labels) - 1)
            batch["weights"] *= tf.gather(class_weights, known)
        return mix(batch, seeds, config) if config.mixup_alpha or config.cutmix_alpha else batch

    steps = tf.data.Dataset.counter(start_step)
    unreadable = UnreadableImages(split, config.max_unreadable)
    examples = _Examples(split, order, make_augmentation(config, image_shape), image_shape, unreadable)
    first_seed = config.seed * 1_000_003  # to which the epoch is added
    batches = _batches(steps, examples, rows, first_seed).map(finish, CALLS, deterministic=True)
    return without_autotune(_without_end(batches).prefetch(2 * len(rows.own)))


@tf.autograph.experimental.do_not_convert
def evaluation_batches(
    images: ImageSet,
    config: Config,
    image_shape: tuple[int, int, int],
    num_replicas: int,
    own_replicas: range | None = None,
    split_name: str = "",
) -> tf.data.Dataset:
    """A split once, in order, in batches for the replicas, or for those that this worker has; default: validation."""
    split = images.open(split_name or config.validation_split)
    rows = _Rows(config.batch_size, num_replicas, own_replicas or range(num_replicas))

    def prepare(encoded: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return decode_image(encoded, image_shape, config.test_scale)

    steps = tf.data.Dataset.range(steps_per_epoch(split.num_examples, config.batch_size))
    unreadable = UnreadableImages(split, config.max_unreadable)
    examples = _Examples(split, lambda _, position: position, prepare, image_shape, unreadable)
    batches = _batches(steps, examples, rows).map(lambda batch, _: batch)
    return without_autotune(batches.prefetch(2 * len(rows.own)))


def repeated_without_end(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches again and again."""
    return _without_end(batches.repeat())


def _without_end(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Says so: workers would otherwise ask one another before each batch whether all still have one."""
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _class_weights(config: Config, split: Split, num_classes: int) -> np.ndarray | None:
    if not config.class_weights:
        return None
    if config.class_weights != "balanced":
        given = np.array([float(number) for number in config.class_weights.split(",")], np.float32)
        if len(given) != num_classes:
            raise InputError(f"class_weights has {len(given)} numbers, but {config.dataset} has {num_classes} classes")
        return given
    counts = split.class_counts(num_classes)
    weights: np.ndarray = (counts.sum() / (num_classes * np.maximum(counts, 1))).astype(np.float32)
    return weights


class _Rows(NamedTuple):
    """The rows of a global batch: shared out to consecutive replicas, of which this worker has its own."""

    batch_size: int
    num_replicas: int
    own: range

    @property
    def share(self) -> int:
        """Rows of a replica."""
        return -(-self.batch_size // self.num_replicas)

    @property
    def numbers(self) -> np.ndarray:
        """Those of this worker; with several replicas the last may lie beyond the batch."""
        return np.arange(self.own.start * self.share, self.own.stop * self.share, dtype=np.int64)


class _Examples(NamedTuple):
    """The images of a split, their order in an epoch, and the way from encoded images to pixels."""

    split: Split
    order: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    prepare: _Prepare
    image_shape: tuple[int, int, int]
    unreadable: UnreadableImages


def _batches(steps: tf.data.Dataset, examples: _Examples, rows: _Rows, first_seed: int = 0) -> tf.data.Dataset:
    """The own replicas' batches of each step, decoded, with their images' seeds."""
    split = examples.split
    num_steps = steps_per_epoch(split.num_examples, rows.batch_size)

    def read(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        position = step % num_steps * rows.batch_size + rows.numbers
        present = (rows.numbers < rows.batch_size) & (position < split.num_examples)
        epoch = first_seed + step // num_steps
        index = examples.order(epoch, tf.where(present, position, 0))
        seeds = tf.stack([tf.fill(position.shape, epoch), position], axis=1)
        columns = seeds, index, present, split.fetch(index)
        return tuple(tf.reshape(each, [len(rows.own), rows.share, *each.shape[1:]]) for each in columns)

    def batch(index: tf.Tensor, missed: tf.Tensor, batch: Batch, seeds: tf.Tensor) -> tuple[Batch, tf.Tensor]:
        with tf.control_dependencies([examples.unreadable.note(tf.boolean_mask(index, missed))]):
            return {name: tf.identity(values) for name, values in batch.items()}, seeds

    each_share = steps.map(read, num_parallel_calls=2, deterministic=True).unbatch()
    at_once = max(2, len(rows.own))  # the next share begins while a share's last images are being decoded
    decoded = each_share.interleave(
        partial(_decoded, examples), cycle_length=at_once, num_parallel_calls=at_once, deterministic=True
    )
    return decoded.map(batch)


def _decoded(
    examples: _Examples, seeds: tf.Tensor, index: tf.Tensor, present: tf.Tensor, strings: tf.Tensor
) -> tf.data.Dataset:
    """A replica's share, decoded, as a dataset of one element; an image that cannot be read has weight 0.

    tf.data can skip an element that fails, but not put another in its place. So all images are decoded at once, and
    only if that fails one by one, each with a blank one behind it in case it fails.
    """
    rows = tf.data.Dataset.from_tensor_slices((seeds, index, present, strings))
    size = index.shape[0]
    blank = tf.zeros(examples.image_shape), tf.constant(0, tf.int64), tf.constant(0.0)

    def pixels(seed: tf.Tensor, index: tf.Tensor, present: tf.Tensor, string: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def read() -> tuple[tf.Tensor, ...]:
            image = examples.prepare(examples.split.load(index, string), seed)
            return image, examples.split.label(index, string), tf.constant(1.0)

        image, label, weight = tf.cond(present, read, lambda: blank)
        return tf.ensure_shape(image, examples.image_shape), label, weight

    def pixels_or_blank(*row: tf.Tensor) -> tf.data.Dataset:
        image = tf.data.Dataset.from_tensors(row).map(pixels).ignore_errors()
        return image.concatenate(tf.data.Dataset.from_tensors(blank)).take(1)

    at_once = rows.map(pixels, num_parallel_calls=CALLS).batch(size, drop_remainder=True).ignore_errors()
    one_by_one = rows.flat_map(pixels_or_blank).batch(size, drop_remainder=True)

    def batch(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tuple[Any, ...]:
        missed = present & (weights == 0)
        return index, missed, {"images": images, "labels": labels, "weights": weights}, seeds

    return at_once.concatenate(one_by_one).take(1).map(batch)
