"""tf.data from end to end: shuffled anew each epoch, decoded, augmented, cut into batches for the replicas.

Every batch has one size. The last one of an epoch is filled up with images of weight 0, so that no replica ever goes
without an image and nothing is retraced, while a mean over the weights stays exact.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from training.batch import Batch
from training.config import Config
from training.data.augmentation import augment, crop_at_random_scale
from training.data.cache import Load, cached_references
from training.data.image_set import ImageSet
from training.data.preprocessing import decode_image
from training.data.randaugment import Policy
from training.data.unreadable import UnreadableImages

_GRAPH_SEED = 87654321  # what TensorFlow takes where none is set
_Prepare = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # from an image's number and itself, encoded, to pixels


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches that cover every image once; the last may be partly filled."""
    return -(-num_examples // batch_size)


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
    devices, sees what it would have seen.

    Args:
        images: The set; its `train_split` is read.
        config: Batch size, seed and augmentation.
        image_shape: `(height, width, channels)` that the network sees.
        num_replicas: Each step takes this many consecutive batches.
        start_step: Steps already done.
        own_replicas: The consecutive ones that this worker has; no image of another one is decoded here. None for all.
    """
    num_examples = images.num_examples(config.train_split)
    first_epoch, done = divmod(start_step, steps_per_epoch(num_examples, config.batch_size))
    references, load = cached_references(images, config, config.train_split)
    buffer = min(num_examples, config.shuffle_buffer)
    shares = _Shares(config.batch_size, num_replicas, own_replicas or range(num_replicas))
    unreadable = _unreadable(images, config, config.train_split, load)
    policy = Policy(config.randaugment_num_ops, config.randaugment_magnitude) if config.randaugment_num_ops else None

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        tf.random.set_seed(_GRAPH_SEED)  # of this function's graph alone: the process's own would change the order
        skipped = tf.where(epoch == first_epoch, tf.constant(done * config.batch_size, tf.int64), 0)
        order = config.seed * 1_000_003 + epoch  # a different shuffle each epoch, and for each seed
        shuffled = references.shuffle(buffer, seed=order, reshuffle_each_iteration=False).enumerate().skip(skipped)

        def prepare(index: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
            seed = tf.stack([order, index])
            if config.scale_min:
                scales = config.scale_min, config.scale_max
                image = crop_at_random_scale(encoded, image_shape, scales, seed, config.flip)
            else:
                image = decode_image(encoded, image_shape)
            return augment(image, seed, config, policy)

        return _batches(shuffled, _Decoder(load, prepare, image_shape, unreadable), shares)

    epochs = tf.data.Dataset.counter(start=first_epoch).flat_map(epoch_batches)
    return _without_end(epochs).prefetch(2 * len(shares.own))


def evaluation_batches(
    images: ImageSet,
    config: Config,
    image_shape: tuple[int, int, int],
    num_replicas: int,
    own_replicas: range | None = None,
) -> tf.data.Dataset:
    """The validation split once, in order, in batches for the replicas, or for those that this worker has."""
    shares = _Shares(config.batch_size, num_replicas, own_replicas or range(num_replicas))

    def prepare(index: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        return decode_image(encoded, image_shape, config.test_scale)

    references, load = cached_references(images, config, config.validation_split)
    decoder = _Decoder(load, prepare, image_shape, _unreadable(images, config, config.validation_split, load))
    batches = _batches(references.enumerate(), decoder, shares)
    return batches.prefetch(2 * len(shares.own))


def repeated_without_end(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches again and again."""
    return _without_end(batches.repeat())


def _without_end(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Says so: workers would otherwise ask one another before each batch whether all still have one."""
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _unreadable(images: ImageSet, config: Config, split: str, load: Load) -> UnreadableImages:
    return UnreadableImages(split, images.num_examples(split), config.max_unreadable, load)


class _Shares(NamedTuple):
    """How a global batch is shared out: to consecutive replicas, of which this worker has its own."""

    batch_size: int
    num_replicas: int
    own: range

    @property
    def size(self) -> int:
        return -(-self.batch_size // self.num_replicas)


class _Decoder(NamedTuple):
    """How an image's reference becomes pixels, and who is told of those that don't."""

    load: Load
    prepare: _Prepare
    image_shape: tuple[int, int, int]
    unreadable: UnreadableImages


def _batches(examples: tf.data.Dataset, decoder: _Decoder, shares: _Shares) -> tf.data.Dataset:
    """Cuts (index, (reference, label, name)) into global batches, and these into the own replicas' batches, decoded."""

    def own_shares(index: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        missing = [shares.num_replicas * shares.size - tf.shape(index)[0]]
        columns = (index, *example, tf.ones_like(index, tf.float32))
        filled = [tf.concat([each, tf.zeros(missing, each.dtype)], axis=0) for each in columns]
        rows = [tf.reshape(each, [shares.num_replicas, shares.size]) for each in filled]
        return tuple(each[shares.own.start : shares.own.stop] for each in rows)

    each_share = examples.batch(shares.batch_size).map(own_shares).unbatch()
    decoded = each_share.interleave(
        partial(_decoded, decoder),
        cycle_length=max(2, len(shares.own)),  # the next share begins while a share's last images are being decoded
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )

    def batch(reference: tf.Tensor, name: tf.Tensor, missed: tf.Tensor, batch: Batch) -> Batch:
        decoder.unreadable.note(tf.boolean_mask(reference, missed), tf.boolean_mask(name, missed))
        return batch

    return decoded.map(batch)


def _decoded(
    decoder: _Decoder, index: tf.Tensor, reference: tf.Tensor, label: tf.Tensor, name: tf.Tensor, weight: tf.Tensor
) -> tf.data.Dataset:
    """A replica's share, decoded, as a dataset of one element; an image that cannot be read has weight 0.

    tf.data can skip an element that fails, but not put another in its place. So all images are decoded at once, and
    only if that fails one by one, each with another behind it in case it fails.
    """
    rows = tf.data.Dataset.from_tensor_slices((index, reference, weight))
    size = index.shape[0]
    blank = tf.zeros(decoder.image_shape)

    def pixels(index: tf.Tensor, reference: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.cond(weight > 0, lambda: decoder.prepare(index, decoder.load(reference)), lambda: blank)
        return tf.ensure_shape(image, decoder.image_shape), weight

    def pixels_or_blank(*row: tf.Tensor) -> tf.data.Dataset:
        image = tf.data.Dataset.from_tensors(row).map(pixels).ignore_errors()
        return image.concatenate(tf.data.Dataset.from_tensors((blank, 0.0))).take(1)

    at_once = rows.map(pixels, num_parallel_calls=tf.data.AUTOTUNE).batch(size, drop_remainder=True).ignore_errors()
    one_by_one = rows.flat_map(pixels_or_blank).batch(size, drop_remainder=True)

    def batch(images: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Batch]:
        return reference, name, weights < weight, {"images": images, "labels": label, "weights": weights}

    return at_once.concatenate(one_by_one).take(1).map(batch)
