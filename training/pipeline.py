"""tf.data from end to end: shuffled anew each epoch, decoded, augmented, cut into batches for the replicas.

Every batch has one size. The last one of an epoch is filled up with images of weight 0, so that no replica ever goes
without an image and nothing is retraced, while a mean over the weights stays exact.
"""

from collections.abc import Callable

import tensorflow as tf

from training.config import Config
from training.datasets import ImageSet
from training.preprocessing import augment, decode_image

_GRAPH_SEED = 87654321  # what TensorFlow takes where none is set
Batch = dict[str, tf.Tensor]  # images float32 [N,H,W,C] in 0..255, labels int64 [N], weights float32 [N]


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
    examples = images.encoded(config.train_split)
    buffer = min(num_examples, config.shuffle_buffer)
    own = own_replicas or range(num_replicas)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        tf.random.set_seed(_GRAPH_SEED)  # of this function's graph alone: the process's own would change the order
        skipped = tf.where(epoch == first_epoch, tf.constant(done * config.batch_size, tf.int64), 0)
        order = config.seed * 1_000_003 + epoch  # a different shuffle each epoch, and for each seed
        shuffled = examples.shuffle(buffer, seed=order, reshuffle_each_iteration=False).enumerate().skip(skipped)

        def prepare(index: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
            image = decode_image(encoded, image_shape)
            return augment(image, tf.stack([order, index]), config.crop_padding, config.flip)

        return _replica_batches(shuffled, prepare, image_shape, config.batch_size, num_replicas, own)

    epochs = tf.data.Dataset.counter(start=first_epoch).flat_map(epoch_batches)
    # Workers would otherwise ask one another before each batch whether all still have one.
    return epochs.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)).prefetch(2 * len(own))


def evaluation_batches(
    images: ImageSet,
    config: Config,
    image_shape: tuple[int, int, int],
    num_replicas: int,
    own_replicas: range | None = None,
) -> tf.data.Dataset:
    """The test split once, in order, in batches for the replicas, or for those that this worker has."""
    own = own_replicas or range(num_replicas)
    examples = images.encoded(config.test_split).enumerate()

    def prepare(index: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        return decode_image(encoded, image_shape)

    return _replica_batches(examples, prepare, image_shape, config.batch_size, num_replicas, own).prefetch(2 * len(own))


def _replica_batches(
    examples: tf.data.Dataset,
    prepare: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    image_shape: tuple[int, int, int],
    batch_size: int,
    num_replicas: int,
    own: range,
) -> tf.data.Dataset:
    """Cuts (index, (encoded image, label)) into global batches, and these into the own replicas' batches, decoded."""
    part = -(-batch_size // num_replicas)
    start, stop = own.start * part, own.stop * part

    def own_part(index: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        missing = [num_replicas * part - tf.shape(index)[0]]
        columns = (index, *example, tf.ones_like(index, tf.float32))
        return tuple(tf.concat([each, tf.zeros(missing, each.dtype)], axis=0)[start:stop] for each in columns)

    def example(index: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor, weight: tf.Tensor) -> Batch:
        image = tf.cond(weight > 0, lambda: prepare(index, encoded), lambda: tf.zeros(image_shape))
        return {"images": tf.ensure_shape(image, image_shape), "labels": label, "weights": weight}

    parts = examples.batch(batch_size).map(own_part).unbatch()
    return parts.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(part, drop_remainder=True)
