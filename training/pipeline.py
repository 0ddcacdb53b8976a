"""tf.data from end to end: shuffled anew each epoch, decoded, augmented, cut into batches for the replicas.

Every batch has one size. The last one of an epoch is filled up with images of weight 0, so that no replica ever goes
without an image and nothing is retraced, while a mean over the weights stays exact.
"""

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
    images: ImageSet, config: Config, image_shape: tuple[int, int, int], num_replicas: int, start_step: int
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
    """
    num_examples = images.num_examples(config.train_split)
    first_epoch, done = divmod(start_step, steps_per_epoch(num_examples, config.batch_size))
    examples = images.encoded(config.train_split)
    buffer = min(num_examples, config.shuffle_buffer)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        tf.random.set_seed(_GRAPH_SEED)  # of this function's graph alone: the process's own would change the order
        skipped = tf.where(epoch == first_epoch, tf.constant(done * config.batch_size, tf.int64), 0)
        order = config.seed * 1_000_003 + epoch  # a different shuffle each epoch, and for each seed
        shuffled = examples.shuffle(buffer, seed=order, reshuffle_each_iteration=False).enumerate().skip(skipped)

        def prepare(index: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> Batch:
            image = decode_image(example[0], image_shape)
            image = augment(image, tf.stack([order, index]), config.crop_padding, config.flip)
            return _example(image, example[1])

        decoded = shuffled.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        return _replica_batches(decoded, config.batch_size, num_replicas)

    epochs = tf.data.Dataset.counter(start=first_epoch)
    return epochs.flat_map(epoch_batches).prefetch(2 * num_replicas)


def evaluation_batches(
    images: ImageSet, config: Config, image_shape: tuple[int, int, int], num_replicas: int
) -> tf.data.Dataset:
    """The test split once, in order, in batches for the replicas."""
    examples = images.encoded(config.test_split)
    decoded = examples.map(
        lambda encoded, label: _example(decode_image(encoded, image_shape), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return _replica_batches(decoded, config.batch_size, num_replicas).prefetch(2 * num_replicas)


def _example(image: tf.Tensor, label: tf.Tensor) -> Batch:
    return {"images": image, "labels": label, "weights": tf.ones((), tf.float32)}


def _replica_batches(examples: tf.data.Dataset, batch_size: int, num_replicas: int) -> tf.data.Dataset:
    size = -(-batch_size // num_replicas) * num_replicas

    def fill(batch: Batch) -> Batch:
        missing = size - tf.shape(batch["labels"])[0]
        filled = {
            name: tf.pad(values, [[0, missing]] + [[0, 0]] * (values.shape.rank - 1)) for name, values in batch.items()
        }
        return {
            name: tf.reshape(values, [num_replicas, size // num_replicas, *values.shape[1:]])
            for name, values in filled.items()
        }

    return examples.batch(batch_size).map(fill).unbatch()
