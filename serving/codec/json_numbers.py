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
_DIGITS_AND_SPACE = b"0123456789.eE+- \t\r\n"
_BYTES_A_ROW = 2048  # shorter rows cost more here
_LONGEST_ARRAY = 0xFFFFFF - 1  # longer ones simdjson does not count
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

    def lists(self) -> list[Any]:
        """The numbers as objects of Python."""
        listed: list[Any] = self._element.as_list()
        return listed


def read_numbers(body: bytes) -> dict[str, Any] | None:
    """The object in a body, its arrays left as Numbers, or None where it has others or is no JSON."""
    try:
        element = simdjson.Parser().parse(body)
        document, text = _read(element, len(body) // _BYTES_A_ROW)
    except (ValueError, RuntimeError):
        return None
    if not isinstance(document, dict):
        return None
    alike = text.translate(None, _DIGITS_AND_SPACE) == body.translate(None, _DIGITS_AND_SPACE)
    return document if alike else None


def plain(value: Any) -> Any:
    """A value as the ordinary parser gives it."""
    if isinstance(value, Numbers):
        return value.lists()
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def _read(element: Any, most_rows: int) -> tuple[Any, bytes]:
    """A value, and a text that differs from its own only in digits and in space."""
    if isinstance(element, simdjson.Object):
        return _read_object(element, most_rows)
    if not isinstance(element, simdjson.Array):
        return element, orjson.dumps(element)
    if len(element) and isinstance(element[0], simdjson.Object):
        return _read_rows(element, most_rows)
    shape = tuple(_shape(element))
    text = b""
    for size in reversed(shape):
        text = b"[" + b",".join([text] * size) + b"]"
    return Numbers(element, shape), text


def _read_object(element: Any, most_rows: int) -> tuple[dict[str, Any], bytes]:
    values: dict[str, Any] = {}
    texts = []
    for name in element.keys():  # noqa: SIM118  only keys leaves the values where they are
        if name in values:
            raise ValueError("Twice the same name")
        if "\0" in name:
            raise ValueError("A name that simdjson reads up to its NUL when asked for its value")
        values[name], text = _read(element[name], most_rows)
        texts.append(orjson.dumps(name) + b":" + text)
    return values, b"{" + b",".join(texts) + b"}"


def _read_rows(element: Any, most_rows: int) -> tuple[list[Any], bytes]:
    if len(element) > most_rows:
        raise ValueError("The rows are short")
    rows, texts = zip(*(_read(row, most_rows) for row in element), strict=True)
    return list(rows), b"[" + b",".join(texts) + b"]"


def _shape(element: Any) -> Iterator[int]:
    """The sizes that the first elements suggest. Raises ValueError where they do not end at a number."""
    while isinstance(element, simdjson.Array):
        size = len(element)
        if not 0 < size <= _LONGEST_ARRAY:
            raise ValueError("An array without numbers, or one of unknown length")
        yield size
        element = element[0]
    if type(element) not in (int, float):
        raise ValueError("An array of something else")
