"""Images that cannot be read: left out, named, counted, and too much once there are too many."""

import re
import sys
from collections.abc import Callable

import tensorflow as tf
from tqdm import tqdm

_TOO_MANY = "unreadable images: "


class UnreadableImages:
    """Those of a split that cannot be read.

    Args:
        split: The split's name, for people.
        num_images: How many images it has.
        max_share: What share of them may be unreadable.
        load: From an image's reference to the encoded image.
    """

    def __init__(self, split: str, num_images: int, max_share: float, load: Callable[[tf.Tensor], tf.Tensor]) -> None:
        self._split = split
        self._num_images = num_images
        self._max_share = max_share
        self._load = load
        self._names: set[str] = set()

    def note(self, references: tf.Tensor, names: tf.Tensor) -> None:
        """Within a graph: names those that are new on standard error, and fails where they have become too many."""

        def note() -> tf.Tensor:
            return tf.py_function(self._note, [references, names], tf.int64)

        tf.cond(tf.size(names) > 0, note, lambda: tf.constant(0, tf.int64))

    def _note(self, references: tf.Tensor, names: tf.Tensor) -> int:
        for reference, name in zip(references, (name.decode() for name in names.numpy()), strict=True):
            if name not in self._names:
                self._names.add(name)
                self._tell(name, self._reason(reference))
        return len(self._names)

    def _tell(self, name: str, reason: str) -> None:
        count, allowed = len(self._names), self._max_share * self._num_images
        if count > allowed:
            raise ValueError(  # TensorFlow makes an InvalidArgumentError of it
                f"{_TOO_MANY}{count} of {self._num_images:,} images of {self._split} cannot be read, the last {name} "
                f"({reason}), and max_unreadable is {self._max_share}: mend the data, or allow more"
            )
        line = f"training: left out {name}, which cannot be read ({reason}); {count} of {self._num_images:,} so far"
        tqdm.write(line, file=sys.stderr)  # beside a progress bar

    def _reason(self, reference: tf.Tensor) -> str:
        try:
            encoded = self._load(reference)
            if not encoded.numpy():
                return "it is empty"
            tf.io.decode_image(encoded, expand_animations=False)
        except tf.errors.OpError as error:
            return re.sub(r"\{\{.*?\}\} ?|\[Op:.*", "", error.message).strip().partition("\n")[0].rstrip(".")
        return "its size or format is not supported"


def too_many_unreadable(error: tf.errors.OpError) -> str | None:
    """What to tell of an error, if it is that there were too many."""
    found = re.search(f"{_TOO_MANY}(.*)", str(error))
    return found[1] if found else None
