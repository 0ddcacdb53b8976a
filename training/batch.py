"""A batch of images: the one type that data, steps and evaluation share.

`images`: float32 `(N, H, W, C)`, values 0..255. `labels`: int64 `(N,)`. `weights`: float32 `(N,)`, the images' weights
in the loss: 0 for a blank that only fills the batch up, above 0 for all others. Where mixup or CutMix mixes images,
also `other_labels`, int64 `(N,)`, and `mix`, float32 `(N,)`: the loss of an image is its weight times the sum of `mix`
times the loss of its own label and `1 - mix` times that of the other.
"""

from typing import Any

import tensorflow as tf

Batch = dict[str, tf.Tensor]


def cut(batch: Batch, num_parts: int) -> Batch:
    """Cuts a batch into parts of one size, filled up with images of weight 0.

    No part is empty, not even of a batch without images: on an empty batch TensorFlow 2.21's convolution fails on CPUs.

    Returns:
        The batch with the parts as a new first axis.
    """
    return {name: _cut(values, num_parts) for name, values in batch.items()}


def _cut(values: tf.Tensor, num_parts: int) -> tf.Tensor:
    num_rows: Any = values.shape[0]
    if num_rows is None:
        num_rows = tf.shape(values)[0]
        size = tf.maximum(1, -(-num_rows // num_parts))
    else:
        size = max(1, -(-num_rows // num_parts))
    missing = size * num_parts - num_rows
    filled = tf.pad(values, [[0, missing]] + [[0, 0]] * (values.shape.rank - 1))
    return tf.reshape(filled, [num_parts, size, *values.shape[1:]])
