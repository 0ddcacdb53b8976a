"""Arrays of numbers in JSON, read by simdjson straight into NumPy's memory.

With an object of Python for each number an image takes four to five times as long. simdjson gives the numbers of nested
lists in one row, so whether the lists are of one length shows in the text: without its digits it must be that of an
array of the shape which the first elements suggest. What is anything else is left to the ordinary parser.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import simdjson

SMALLEST_BODY = 2048
"""Bytes. Shorter texts are read as fast by the ordinary parser."""
MOST_DIMENSIONS = 64
"""Of a NumPy array."""
_DIGITS_AND_SPACE = b"0123456789.eE+- \t\r\n"
_BYTES_A_ROW = 2048  # shorter rows cost more here
_LONGEST_ARRAY = 0xFFFFFF - 1  # longer ones simdjson does not count
_MOST_NAMES = 64  # of an object: simdjson looks through all names for each
_BUFFER_TYPES = {"d": np.float64, "i": np.int64, "u": np.uint64}


class Numbers:
    """An array of numbers, all lists of one level as long as each other, not yet of a type."""

    def __init__(self, element: Any, shape: tuple[int, ...]) -> None:
        self._element = element
        self.shape = shape

    def read(self, kind: str) -> np.ndarray | None:
        """The array as doubles ("d"), int64 ("i") or uint64 ("u"), or None where a number is none of these."""
        try:
            buffer = self._element.as_buffer(of_type=kind)
        except (TypeError, ValueError):
            return None
        array = np.frombuffer(buffer, _BUFFER_TYPES[kind])
        # Without their digits [1] and [] look alike.
        return array.reshape(self.shape) if array.size == math.prod(self.shape) else None

    def __len__(self) -> int:
        return len(self._element)  # [1] and [] look alike

    def __iter__(self) -> Iterator[Any]:
        """The numbers, or the arrays of them, one after the other: as Python's objects all take long, and much."""
        for each in self._element:
            yield Numbers(each, self.shape[1:]) if len(self.shape) > 1 else each

    def lists(self) -> list[Any]:
        """The numbers as objects of Python."""
        listed: list[Any] = self._element.as_list()
        return listed


def read_numbers(body: bytes) -> dict[str, Any] | None:
    """The object in a body, its arrays left as Numbers, or None where it has others or is no JSON."""
    outline = _Outline(body)
    try:
        element = simdjson.Parser().parse(body)
        document = _read(element, outline, len(body) // _BYTES_A_ROW)
        outline.end()
    except (ValueError, RuntimeError):
        return None
    return document if isinstance(document, dict) else None


class _Outline:
    """The text of a body without digits and space, compared with what it should be, piece by piece.

    A piece is built only where it is not longer than what is left of the text. Raises ValueError where they differ.
    """

    def __init__(self, body: bytes) -> None:
        self._text = body.translate(None, _DIGITS_AND_SPACE)
        self._position = 0

    def take(self, piece: bytes) -> None:
        """Compares the next piece, which may have digits."""
        piece = piece.translate(None, _DIGITS_AND_SPACE)
        if not self._text.startswith(piece, self._position):
            raise ValueError("The text differs")
        self._position += len(piece)

    def take_array(self, shape: tuple[int, ...]) -> None:
        """Compares the brackets and commas of an array."""
        length = 0
        for size in reversed(shape):
            length = size * (length + 1) + 1
            if length > len(self._text) - self._position:
                raise ValueError("The text is shorter than the array")
        text = b""
        for size in reversed(shape):
            text = b"[" + b",".join([text] * size) + b"]"
        self.take(text)

    def end(self) -> None:
        """Compares the end."""
        if self._position != len(self._text):
            raise ValueError("The text is longer")


def _read(element: Any, outline: _Outline, most_rows: int) -> Any:
    if isinstance(element, simdjson.Object):
        return _read_object(element, outline, most_rows)
    if not isinstance(element, simdjson.Array):
        outline.take(orjson.dumps(element))
        return element
    if len(element) and isinstance(element[0], simdjson.Object):
        return _read_rows(element, outline, most_rows)
    shape = _shape(element)
    outline.take_array(shape)
    return Numbers(element, shape)


def _read_object(element: Any, outline: _Outline, most_rows: int) -> dict[str, Any]:
    if len(element) > _MOST_NAMES:
        raise ValueError("Many names")
    values: dict[str, Any] = {}
    outline.take(b"{")
    for name in element.keys():  # noqa: SIM118  only keys leaves the values where they are
        if name in values:
            raise ValueError("Twice the same name")
        if "\0" in name:
            raise ValueError("A name that simdjson reads up to its NUL when asked for its value")
        outline.take((b"," if values else b"") + orjson.dumps(name) + b":")
        values[name] = _read(element[name], outline, most_rows)
    outline.take(b"}")
    return values


def _read_rows(element: Any, outline: _Outline, most_rows: int) -> list[Any]:
    if len(element) > most_rows:
        raise ValueError("The rows are short")
    rows: list[Any] = []
    for row in element:
        outline.take(b"," if rows else b"[")
        rows.append(_read(row, outline, most_rows))
    outline.take(b"]")
    return rows


def _shape(element: Any) -> tuple[int, ...]:
    """The sizes that the first elements suggest. Raises ValueError where they do not end at a number."""
    sizes: list[int] = []
    while isinstance(element, simdjson.Array):
        size = len(element)
        if not 0 < size <= _LONGEST_ARRAY or len(sizes) == MOST_DIMENSIONS:
            raise ValueError("An array without numbers, or one of unknown length or too many dimensions")
        sizes.append(size)
        element = element[0]
    if type(element) not in (int, float):
        raise ValueError("An array of something else")
    return tuple(sizes)
