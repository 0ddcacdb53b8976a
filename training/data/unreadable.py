"""Images that cannot be read: left out, named, counted, and too much once there are too many."""

import re
import sys

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training.data.image_set import Split

_TOO_MANY = "unreadable images: "


class UnreadableImages:
    """Those of a split that cannot be read.

    Args:
        split: The split.
        max_share: What share of its images may be unreadable.
    """

    def __init__(self, split: Split, max_share: float) -> None:
        self._split = split
        self._max_share = max_share
        self._indices: set[int] = set()

    def note(self, indices: tf.Tensor) -> tf.Operation:
        """Within a graph: names those that are new on standard error, and fails where they have become too many."""

        def note() -> tf.Tensor:
            return tf.numpy_function(self._note, [indices], tf.int64)

        return tf.cond(tf.size(indices) > 0, note, lambda: tf.constant(0, tf.int64)).op

    def _note(self, indices: np.ndarray) -> int:
        for index in indices.tolist():
            if index not in self._indices:
                self._indices.add(index)
                self._tell(self._split.describe(index), self._reason(index))
        return len(self._indices)

    def _tell(self, name: str, reason: str) -> None:
        count, total = len(self._indices), self._split.num_examples
        if count > self._max_share * total:
            raise ValueError(  # TensorFlow makes an InvalidArgumentError of it
                f"{_TOO_MANY}{count} of {total:,} images of {self._split.name} cannot be read, the last {name} "
                f"({reason}), and max_unreadable is {self._max_share}: mend the data, or allow more"
            )
        line = f"training: left out {name}, which cannot be read ({reason}); {count} of {total:,} so far"
        tqdm.write(line, file=sys.stderr)  # beside a progress bar

    def _reason(self, index: int) -> str:
        try:
            encoded = self._split.read(index)
            if not encoded.numpy():
                return "it is empty"
            tf.io.decode_image(encoded, expand_animations=False)
        except tf.errors.OpError as error:
            return re.sub(r"\{\{.*?\}\} ?|\[Op:.*", "", error.message).strip().partition("\n")[0].rstrip(".")
        return "its size or format is not supported"


def too_many_unreadable(error: tf.errors.OpError) -> str | None:
    """The message for an error about too many unreadable images; None for others."""
    found = re.search(f"{_TOO_MANY}(.*)", str(error))
    return found[1] if found else None
