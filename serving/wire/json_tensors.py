"""JSON values <-> tensors, with the strictness and the texts of util/json_tensor.cc."""

import base64
import binascii
import math
from itertools import chain
from typing import Any

import numpy as np

from serving.errors import Code, ServingError, invalid_argument
from serving.wire.json_numbers import MOST_DIMENSIONS, Numbers
from serving.wire.json_text import type_name, value_text, write, write_array
from serving.wire.signatures import NUMPY_TYPES, type_word

_INTEGER_RANGES = {
    # TensorFlow Serving takes any int32 for the narrower types too, and TensorFlow cuts it to their width.
    **dict.fromkeys(("int8", "int16", "int32", "uint8"), (-(2**31), 2**31 - 1)),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
# Integers up to here are exact in the type; greater ones are refused (IsLosslessDecimal).
_EXACT_INTEGERS = {"float": 2**24 - 1, "double": 2**53 - 1}
_LARGEST = {word: float(np.finfo(NUMPY_TYPES[word]).max) for word in _EXACT_INTEGERS}
_LITERALS: dict[str, frozenset[type]] = {  # of Python, that each type takes
    "bool": frozenset({bool}),
    **dict.fromkeys(_INTEGER_RANGES, frozenset({int})),
    **dict.fromkeys(_EXACT_INTEGERS, frozenset({int, float})),
}
_WRITABLE = _LITERALS.keys()
_WIDEST = {"?": np.bool_, "i": np.int64, "u": np.uint64, "d": np.float64}


def is_json_type(word: str) -> bool:
    """Whether JSON has values for a type of TensorFlow."""
    return word == "string" or word in _WRITABLE


def is_base64(value: Any) -> bool:
    """Whether a JSON value is bytes: an object with the one key "b64" and a string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Any) -> bytes:
    """The bytes of {"b64": ...}."""
    if not is_base64(value):
        raise invalid_argument(f"JSON Value: {value_text(value)} not formatted correctly for base64 data")
    # absl::Base64Unescape skips white space and needs no padding. It refuses the alphabet for URLs, which many send.
    unpadded = "".join(value["b64"].split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def decode_tensor(value: Any, word: str) -> np.ndarray:
    """The tensor of a type that nested lists, or a plain value, make."""
    array = _decode_quickly(value, word) if isinstance(value, list | Numbers) and word in _LITERALS else None
    return _decode_strictly(value, word) if array is None else array


def encode_tensor(array: np.ndarray, as_base64: bool = False) -> bytes:
    """The JSON text of a tensor; strings are text unless they are to be {"b64": ...}."""
    if _checked_word(array) == "string":
        return write(_string_values(array.tolist(), as_base64))
    return write_array(array)


def row_values(array: np.ndarray, as_base64: bool = False) -> list[Any] | None:
    """The rows of a tensor as `write` takes them, or None where numbers that are not finite stop it."""
    if _checked_word(array) == "string":
        return [_string_values(row, as_base64) for row in array.tolist()]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return None
    return list(np.ascontiguousarray(array))


def _checked_word(array: np.ndarray) -> str:
    word = type_word(array)
    if word != "string" and word not in _WRITABLE:
        raise invalid_argument(f"Failed to write JSON value for tensor type: {word}")
    return word


def _decode_quickly(value: list[Any] | Numbers, word: str) -> np.ndarray | None:
    """NumPy's reading of clean input, or None where only the strict reading can say what is wrong."""
    array = _natural_array(value, word)
    if array is None or not _is_exact(array, word):
        return None
    return array.astype(NUMPY_TYPES[word], copy=False)


def _natural_array(value: list[Any] | Numbers, word: str) -> np.ndarray | None:
    """The array of lists of one length whose literals are of the right kind, in the widest type of that kind."""
    kind = "d" if word in _EXACT_INTEGERS else "u" if word == "uint64" else "?" if word == "bool" else "i"
    if isinstance(value, Numbers):
        return value.read(kind) if kind != "?" else None
    if value and isinstance(value[0], Numbers):
        rows = [_natural_array(each, word) if isinstance(each, list | Numbers) else None for each in value]
        shapes = {None if row is None else row.shape for row in rows}
        if len(shapes) > 1 or None in shapes or rows[0].ndim == MOST_DIMENSIONS:  # type: ignore[union-attr]
            return None
        return np.stack(rows)  # type: ignore[arg-type]
    # To let NumPy look at unknown values is not safe: all strings of an array are as long as the longest.
    flat, shape = _flattened(value)
    if not set(map(type, flat)) <= _LITERALS[word] or len(shape) > MOST_DIMENSIONS:
        return None
    try:
        return np.array(flat, _WIDEST[kind]).reshape(shape)
    except OverflowError:
        return None


def _flattened(value: list[Any]) -> tuple[list[Any], list[int]]:
    """The elements of nested lists and their shape; lists of several lengths are left as elements."""
    flat, shape = value, [len(value)]
    while set(map(type, flat)) == {list}:
        if len(sizes := set(map(len, flat))) > 1:
            break
        shape.append(sizes.pop())
        flat = list(chain.from_iterable(flat))
    return flat, shape


def _is_exact(array: np.ndarray, word: str) -> bool:
    """Whether a type holds all numbers as they are. False where there is a NaN, too."""
    if word == "bool" or not array.size:
        return True
    low, high = _INTEGER_RANGES.get(word) or (-_EXACT_INTEGERS[word], _EXACT_INTEGERS[word])
    least, most = array.min().item(), array.max().item()
    return bool(low <= least and most <= high)


def _decode_strictly(value: Any, word: str) -> np.ndarray:
    shape = _shape(value)
    if len(shape) > MOST_DIMENSIONS:
        raise invalid_argument(f"Lists are nested {len(shape)} deep: tensors have at most {MOST_DIMENSIONS} dimensions")
    values: list[Any] = []
    _collect(value, word, shape, 0, values)
    array = np.empty(len(values), NUMPY_TYPES[word])
    if word in ("int8", "int16", "uint8"):
        array[:] = np.array(values, np.int32).astype(array.dtype)
    else:
        array[:] = values
    return array.reshape(shape)


def _shape(value: Any) -> tuple[int, ...]:
    """The shape that the first elements suggest (GetDenseTensorShape)."""
    sizes: list[int] = []
    while isinstance(value, list | Numbers):
        if isinstance(value, Numbers):
            return (*sizes, *value.shape)
        sizes.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(sizes)


def _collect(value: Any, word: str, shape: tuple[int, ...], level: int, values: list[Any]) -> None:
    """Appends the elements in order, refusing what does not fit the shape (FillTensorProto)."""
    if not isinstance(value, list | Numbers):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {value_text(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        values.append(_element(value, word))
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for each in value:
        _collect(each, word, shape, level + 1, values)


def _element(value: Any, word: str) -> Any:
    if isinstance(value, dict):
        if word != "string":
            raise _type_error(value, word)
        return decode_base64(value)
    if word == "string" and isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if word == "bool" and isinstance(value, bool):
        return value
    if word in _INTEGER_RANGES and _is_integer(value):
        low, high = _INTEGER_RANGES[word]
        if low <= value <= high:
            return value
    if word in _EXACT_INTEGERS and isinstance(value, int | float) and not isinstance(value, bool):
        return _lossless(value, word)
    if word not in _WRITABLE and word != "string":
        text = value_text(value)
        raise ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {text} to type: {word}")
    raise _type_error(value, word)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _lossless(value: float, word: str) -> float:
    limit = _EXACT_INTEGERS[word] if isinstance(value, int) else _LARGEST[word]
    if limit < abs(value) < math.inf:  # of integers, isfinite takes only those that fit a float
        raise invalid_argument(f"Cannot convert JSON value: {value_text(value)} to {word} without loss of precision.")
    return value


def _type_error(value: Any, word: str) -> ServingError:
    return invalid_argument(f"JSON Value: {value_text(value)} Type: {type_name(value)} is not of expected type: {word}")


def _string_values(value: Any, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_string_values(each, as_base64) for each in value]
    data = value if isinstance(value, bytes) else str(value).encode()
    # TensorFlow Serving copies bytes that are not UTF-8 into its JSON, which no parser takes then.
    return {"b64": base64.b64encode(data).decode()} if as_base64 else data.decode("utf-8", "replace")
