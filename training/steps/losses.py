"""What a batch is judged by."""

import tensorflow as tf

from training.data.pipeline import Batch


def cross_entropies(batch: Batch, logits: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Each image's cross-entropy in nats, times its weight.

    Args:
        batch: Its labels and weights count.
        logits: `(N, classes)`, of any float type; computed in float32.
        label_smoothing: Share of each label that is spread evenly over all classes.

    Reference:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016, section 7.
    """
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["labels"], logits)
    if label_smoothing:
        evenly = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * evenly
    return losses * batch["weights"]


def num_correct(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The sum of the weights of the images whose label has the largest logit."""
    hits = tf.cast(tf.argmax(logits, axis=-1) == batch["labels"], tf.float32)
    return tf.reduce_sum(hits * batch["weights"])
