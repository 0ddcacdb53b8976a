"""Between clients and a version's graph: no image that would fill the memory goes in, no path comes out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.example import example_pb2

from serving.errors import ServingError, invalid_argument
from serving.models.image_size import num_pixels
from serving.models.model import Runner

_SHORTEST_IMAGE = 13  # bytes, the least that any header takes


class GuardedRunner:
    """A runner of a version under a base path. Images may have so many pixels; with 0 nothing is looked at."""

    def __init__(self, runner: Runner, base_path: Path, max_image_pixels: int) -> None:
        self.runner = runner
        self._base_path = base_path
        self._max_image_pixels = max_image_pixels

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        timeout: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[np.ndarray]:
        """The tensors of these names. Raises ServingError, too, where an image is too large to be decoded."""
        if self._max_image_pixels:
            self._check_images(feeds)
        try:
            return self.runner.run(feeds, fetches, timeout, cancelled)
        except ServingError as error:
            raise ServingError(error.code, without_path(error.message, self._base_path)) from error

    def close(self) -> None:
        """Closes the runner."""
        self.runner.close()

    def _check_images(self, feeds: Mapping[str, np.ndarray]) -> None:
        for array in feeds.values():
            if array.dtype.kind not in "OS":
                continue
            last = None
            for value in array.flat:
                if value is not last:  # a tensor of too few values repeats the last
                    for pixels in _sizes(value):
                        self._check_size(pixels)
                last = value

    def _check_size(self, pixels: int) -> None:
        if pixels > self._max_image_pixels:
            shown = f"{pixels} pixels" if pixels < 2**62 else "parts without end"
            raise invalid_argument(f"An image has {shown}: at most {self._max_image_pixels} pixels are decoded")


def without_path(message: str, base_path: Path) -> str:
    """The text with paths relative to the model's: any client may read it, and where models lie is not its matter."""
    return message.replace(str(base_path), "<model_base_path>")


def _sizes(value: object) -> Iterator[int]:
    """The pixels of the images in a string: itself, or what a tf.Example holds."""
    if not isinstance(value, bytes) or len(value) < _SHORTEST_IMAGE:
        return
    pixels = num_pixels(value)
    if pixels is not None:
        yield pixels
        return
    try:
        example = example_pb2.Example.FromString(value)
    except DecodeError:
        return
    for feature in example.features.feature.values():
        yield from (num_pixels(each) or 0 for each in feature.bytes_list.value)
