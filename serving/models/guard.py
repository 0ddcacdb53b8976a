"""Guards a graph: no image goes in whose pixels would fill the memory, and no path of this machine comes out.

A few kilobytes can stand for gigabytes of pixels. The code here reads headers itself, without Pillow: of a GIF, Pillow
reads the screen only, but TensorFlow allocates all frames as large as the largest one; and Pillow refuses some JPEGs
that the libjpeg of TensorFlow decodes.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.example import example_pb2

from serving.call import Call
from serving.errors import ServingError, invalid_argument
from serving.models.model import Runner

_SHORTEST_IMAGE = 13  # bytes, the least that any header takes
_SHORT_EXAMPLE = 4096  # bytes; in longer ones the search for a header takes longer than parsing
_MOST_PARTS = 100_000  # of a JPEG or GIF: honest ones have tens, and to go through more would take long
_BLOCK = 64  # bytes that blocks of a GIF have on average, at least, where it has very many: honest ones have 255
ENDLESS = 2**63
"""The number of pixels of an image that is not read to its end."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_GIF = (b"GIF87a", b"GIF89a")
_ANY_HEADER = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|WEBP|BM")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes that the second header of a BMP may have
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_NO_FILL = re.compile(rb"[^\xff]")
_JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


class GuardedRunner:
    """Checks the inputs of a runner, and the texts of its errors. 0 pixels allow images of any size."""

    def __init__(self, runner: Runner, base_path: Path, max_image_pixels: int) -> None:
        self.runner = runner
        self._base_path = base_path
        self._max_image_pixels = max_image_pixels

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], call: Call) -> list[np.ndarray]:
        """Runs the runner. Raises ServingError, too, if an image is too large to be decoded."""
        if self._max_image_pixels:
            for array in feeds.values():
                if array.dtype.kind in "OS":
                    self._check_images(array)
        try:
            return self.runner.run(feeds, fetches, call)
        except ServingError as error:
            raise ServingError(error.code, without_path(error.message, self._base_path)) from error

    def close(self) -> None:
        """Closes the runner."""
        self.runner.close()

    def _check_images(self, array: np.ndarray) -> None:
        last = None
        for value in array.flat:
            if value is not last:  # a tensor of too few values repeats the last
                for pixels in _sizes(value):
                    if pixels > self._max_image_pixels:
                        shown = f"{pixels} pixels" if pixels < 2**62 else "parts without end"
                        raise invalid_argument(
                            f"An image has {shown}: at most {self._max_image_pixels} pixels are decoded"
                        )
            last = value


def without_path(message: str, base_path: Path) -> str:
    """The text with paths relative to the model's: any client may read it, and must not learn where models lie."""
    return message.replace(str(base_path), "<model_base_path>")


def _sizes(value: object) -> Iterator[int]:
    """The pixels of the images in a string: of the string itself, or of the strings in a tf.Example."""
    if not isinstance(value, bytes) or len(value) < _SHORTEST_IMAGE:
        return
    pixels = num_pixels(value)
    if pixels is not None:
        yield pixels
        return
    if len(value) < _SHORT_EXAMPLE and not _ANY_HEADER.search(value):
        return
    try:
        example = example_pb2.Example.FromString(value)
    except DecodeError:
        return
    for feature in example.features.feature.values():
        yield from (num_pixels(each) or 0 for each in feature.bytes_list.value)


def num_pixels(data: bytes) -> int | None:
    """The pixels of a PNG, JPEG, GIF (of all its frames), BMP or WebP; None if the bytes are none of these."""
    try:
        if data.startswith(_PNG):
            return _area(struct.unpack_from(">II", data, 16))
        if data.startswith(_JPEG):
            return _jpeg(data)
        if data.startswith(_GIF):
            return _gif(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(b"BM") and _is_bmp(data):
            return _area(struct.unpack_from("<ii", data, 18))
    except struct.error:  # it ends too early, and no decoder will make much of it
        return 0
    return None


def _area(size: tuple[int, ...]) -> int:
    width, height = size
    return abs(width * height)


def _jpeg(data: bytes) -> int:
    position = 2
    for _ in range(_MOST_PARTS):
        if data.startswith(b"\xff\xff", position):  # fill bytes
            end = _NO_FILL.search(data, position)
            if end is None:
                return 0
            position = end.start() - 1
        start, marker = struct.unpack_from(">BB", data, position)
        if start != 0xFF:  # a decoder looks for the next marker
            position = data.find(b"\xff", position)
            if position < 0:
                return 0
        elif marker in _JPEG_SIZES:
            return _area(struct.unpack_from(">HH", data, position + 5))
        elif marker in _JPEG_ALONE or marker == 0:
            position += 2
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return ENDLESS


def _gif(data: bytes) -> int:
    # TensorFlow's decoder allocates all frames as large as the largest one, other decoders the screen.
    width, height = struct.unpack_from("<HH", data, 6)
    position = 13 + _color_table(struct.unpack_from("B", data, 10)[0])
    num_frames, parts_left = 0, _MOST_PARTS + len(data) // _BLOCK
    while parts_left > 0:
        kind = data[position : position + 1]
        if kind == b",":
            num_frames += 1
            size = struct.unpack_from("<HH", data, position + 5)
            width, height = max(width, size[0]), max(height, size[1])
            position += 10
            position += _color_table(struct.unpack_from("B", data, position - 1)[0]) + 1
        elif kind == b"!":
            position += 2
        else:
            return width * height * max(1, num_frames)
        while position < len(data) and data[position] and parts_left > 0:  # blocks of data
            position += data[position] + 1
            parts_left -= 1
        position += 1
        parts_left -= 1
    return ENDLESS


def _color_table(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> int:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return width * height * max(1, data.count(b"ANMF"))
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    width, height = struct.unpack_from("<HH", data, 26)
    return (width & 0x3FFF) * (height & 0x3FFF)


def _is_bmp(data: bytes) -> bool:
    # Text may begin with BM.
    reserved, _, header = struct.unpack_from("<III", data, 6)
    return reserved == 0 and header in _BMP_HEADERS
