"""Large arrays of numbers in JSON, read by simdjson into NumPy's memory.

An image of 224x224x3 takes 8 ms of CPU time, and 21 with a Python object per number.
"""

import math
import re
from typing import Literal

import numpy as np
import orjson
import simdjson

from serving.wire.json_text import KEYS, parse_object
from serving.wire.signatures import DTYPES, MOST_DIMENSIONS

_SMALLEST_BODY = 2048  # bytes; shorter ones are read as fast in the ordinary way
_LARGEST_BODY = 2**26  # bytes; simdjson takes 24 for each meanwhile
_LARGEST_COMPRESSED = 2**22  # bytes, inflated: a few kilobytes may have become as many
_KEY = re.compile(rb'"(instances|inputs)"\s*:\s*\Z')
_PLACEHOLDER = "\0"
_DIGITS_AND_SPACE = b"0123456789.eE+- \t\r\n"
_LONGEST_ARRAY = 0xFFFFFF - 1  # simdjson counts no further
_Kind = Literal["d", "i", "u"]
_BUFFERS: dict[str, tuple[_Kind, type[np.generic]]] = {
    **dict.fromkeys(("float", "double"), ("d", np.float64)),
    **dict.fromkeys(("int8", "int16", "int32", "int64", "uint8"), ("i", np.int64)),
    **dict.fromkeys(("uint32", "uint64"), ("u", np.uint64)),
}


class NumberArray:
    """Nested lists of numbers in a body, all lists of one level of one length; no number has been read."""

    def __init__(self, body: bytes, key: str, start: int, end: int, was_compressed: bool) -> None:
        """Raises ValueError unless the value of the key is such an array, from start to end of the body."""
        self._body = body
        self._key = key
        self._was_compressed = was_compressed
        document = simdjson.Parser().parse(body)
        element = document[key] if isinstance(document, simdjson.Object) else None
        if not isinstance(element, simdjson.Array):
            raise ValueError("No array")
        self._shape = _first_sizes(element)
        self._element: simdjson.Array | None = element
        _check_brackets(body, start, end, self._shape)

    def read(self, dtype: str, largest: int) -> np.ndarray | None:
        """Returns the array, once; None where a number is of another kind, or may be larger than `largest`."""
        element, self._element = self._element, None  # it takes much memory
        if element is None or dtype not in _BUFFERS:
            return None
        kind, widest = _BUFFERS[dtype]
        try:
            flat = np.frombuffer(element.as_buffer(of_type=kind), widest)
        except (TypeError, ValueError):
            return None
        # Without their digits [1] and [] look alike.
        if flat.size != math.prod(self._shape) or not max(-flat.min().item(), flat.max().item()) <= largest:
            return None
        return flat.astype(DTYPES[dtype].numpy, copy=False).reshape(self._shape)

    def lists(self) -> list[object]:
        """Reads the numbers as Python objects. Raises ServingError where they are too many."""
        lists = parse_object(self._body, self._was_compressed)[self._key]
        assert isinstance(lists, list)
        return lists


def parse_number_array(body: bytes, was_compressed: bool = False) -> dict[str, object] | None:
    """Parses a body of which `instances` or `inputs` is one large array of numbers; None where it is anything else."""
    if not _SMALLEST_BODY <= len(body) <= (_LARGEST_COMPRESSED if was_compressed else _LARGEST_BODY):
        return None
    start, end = body.find(b"["), body.rfind(b"]") + 1
    found = _KEY.search(body, max(0, start - 64), start) if start >= 0 else None
    if found is None:
        return None
    rest = body[:start] + orjson.dumps(_PLACEHOLDER) + body[end:]
    if any(rest.count(key) > 1 for key in KEYS):
        return None
    key = found[1].decode()
    try:
        document = orjson.loads(rest)
        if not isinstance(document, dict) or document.get(key) != _PLACEHOLDER or _is_odd(document):
            return None
        return {**document, key: NumberArray(body, key, start, end, was_compressed)}
    except (ValueError, RuntimeError):
        return None


def _is_odd(document: dict[str, object]) -> bool:
    """Whether an error would have to quote the document."""
    return {"instances", "inputs"} <= document.keys() or not isinstance(document.get("signature_name", ""), str)


def _first_sizes(element: object) -> tuple[int, ...]:
    """The shape that the first elements suggest."""
    sizes: list[int] = []
    while isinstance(element, simdjson.Array):
        if not 0 < len(element) <= _LONGEST_ARRAY or len(sizes) == MOST_DIMENSIONS:
            raise ValueError("No array, or one that is too long")
        sizes.append(len(element))
        element = element[0]
    return tuple(sizes)


def _check_brackets(body: bytes, start: int, end: int, shape: tuple[int, ...]) -> None:
    """Simdjson gives the numbers in one row; whether all lists are of one length shows in the brackets and commas."""
    brackets = body.translate(None, _DIGITS_AND_SPACE)  # of all of the body, as to cut the array out would copy it
    length = 0
    for size in reversed(shape):
        length = size * (length + 1) + 1
        if length > len(brackets):  # before anything is built that is longer than the text
            raise ValueError("The text is shorter than the array")
    expected = b""
    for size in reversed(shape):
        expected = b"[" + b",".join([expected] * size) + b"]"
    head, tail = (part.translate(None, _DIGITS_AND_SPACE) for part in (body[:start], body[end:]))
    if brackets != head + expected + tail:
        raise ValueError("The lists differ in length")
