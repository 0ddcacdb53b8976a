"""JSON values <-> tensors, with the strictness and the texts of util/json_tensor.cc."""

import base64
import binascii
from itertools import chain

import numpy as np

from serving.errors import Code, ServingError, invalid_argument
from serving.wire.json_text import type_name, value_text, write, write_array
from serving.wire.signatures import DTYPES, MOST_DIMENSIONS, dtype_name, string_array

_CHUNK = 1024  # elements among which the first wrong one is looked for
_INTEGER_RANGES = {
    # TensorFlow Serving takes any int32 for the narrower types too, and TensorFlow cuts it to their width.
    **dict.fromkeys(("int8", "int16", "int32", "uint8"), (-(2**31), 2**31 - 1)),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
# Integers up to here are exact in the type; greater ones are refused (IsLosslessDecimal).
_EXACT_INTEGERS = {"float": 2**24 - 1, "double": 2**53 - 1}
_LARGEST = {dtype: float(np.finfo(DTYPES[dtype].numpy).max) for dtype in _EXACT_INTEGERS}
_LITERALS: dict[str, frozenset[type]] = {  # types of Python that each dtype takes
    "bool": frozenset({bool}),
    **dict.fromkeys(_INTEGER_RANGES, frozenset({int})),
    **dict.fromkeys(_EXACT_INTEGERS, frozenset({int, float})),
}


def is_json_type(dtype: str) -> bool:
    """Whether JSON has values for a dtype."""
    return dtype == "string" or dtype in _LITERALS


def largest_exact(dtype: str) -> int:
    """The largest absolute value up to which a dtype holds every number of its kind; 0 where JSON has none."""
    return _INTEGER_RANGES[dtype][1] if dtype in _INTEGER_RANGES else _EXACT_INTEGERS.get(dtype, 0)


def is_base64(value: object) -> bool:
    """Whether a JSON value is bytes: an object with the one key "b64" and a string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: dict[str, str]) -> bytes:
    """Returns the bytes of {"b64": ...}."""
    if not is_base64(value):
        raise invalid_argument(f"JSON Value: {value_text(value)} not formatted correctly for base64 data")
    # absl::Base64Unescape skips white space and needs no padding. It refuses the alphabet for URLs, which many send.
    unpadded = "".join(value["b64"].split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def decode_tensor(value: object, dtype: str) -> np.ndarray:
    """Returns the tensor that nested lists, or a plain value, make."""
    shape = _shape(value)
    if len(shape) > MOST_DIMENSIONS:
        raise invalid_argument(f"Lists are nested {len(shape)} deep: tensors have at most {MOST_DIMENSIONS} dimensions")
    elements, misfit = _flatten(value, shape)
    array = (
        string_array([_bytes(each, len(shape)) for each in elements])
        if dtype == "string"
        else _numbers(elements, dtype)
    )
    if array is None:
        raise _element_error(_first_wrong(elements, dtype), dtype, len(shape))
    if misfit:
        raise misfit
    return array.reshape(shape)


def encode_tensor(array: np.ndarray, as_base64: bool = False) -> bytes:
    """Returns the JSON text of a tensor. Strings are text, or {"b64": ...}."""
    if _writable_type(array) == "string":
        return write(_string_values(array.tolist(), as_base64))
    return write_array(array)


def row_values(array: np.ndarray, as_base64: bool = False) -> list[object] | None:
    """Returns the rows of a tensor as `write` takes them, or None where a number is not finite."""
    if _writable_type(array) == "string":
        return [_string_values(row, as_base64) for row in array.tolist()]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return None
    return list(np.ascontiguousarray(array))


def _shape(value: object) -> tuple[int, ...]:
    """Returns the shape that the first elements suggest (GetDenseTensorShape)."""
    sizes: list[int] = []
    while isinstance(value, list):
        sizes.append(len(value))
        value = value[0] if value else None
    return tuple(sizes)


def _flatten(value: object, shape: tuple[int, ...]) -> tuple[list[object], ServingError | None]:
    """Returns the elements of nested lists in order, up to the first list that does not fit the shape, and its error.

    The order of errors is that of the text, as in FillTensorProto, although all lists of a level are read together.
    """
    nodes, misfit = [value], None
    for level, size in enumerate(shape):
        if set(map(type, nodes)) - {list} or set(map(len, nodes)) - {size}:  # type: ignore[arg-type]
            position = next(at for at, node in enumerate(nodes) if not isinstance(node, list) or len(node) != size)
            misfit = _misfit(nodes[position], level, shape)
            nodes = nodes[:position]
        nodes = list(chain.from_iterable(nodes))  # type: ignore[arg-type]
    return nodes, misfit


def _misfit(node: object, level: int, shape: tuple[int, ...]) -> ServingError:
    if isinstance(node, list):
        return invalid_argument(
            f"Encountered list at unexpected size: {len(node)} at level: {level} expected size: {shape[level]}"
        )
    return invalid_argument(
        f"JSON Value: {value_text(node)} found at incorrect level: {level + 1} in the JSON DOM. "
        f"Expected at level: {len(shape)}"
    )


def _numbers(elements: list[object], dtype: str) -> np.ndarray | None:
    """Returns the array of numbers or booleans, or None where the type cannot hold one of them."""
    # To let NumPy look at unknown values is not safe: all strings of an array are as long as the longest.
    if not set(map(type, elements)) <= _LITERALS.get(dtype, frozenset()):
        return None
    widest = np.float64 if dtype in _EXACT_INTEGERS else np.int64 if dtype not in ("bool", "uint64") else None
    try:
        array = np.fromiter(elements, widest or DTYPES[dtype].numpy, len(elements))
    except OverflowError:
        return None
    return array.astype(DTYPES[dtype].numpy, copy=False) if _is_exact(array, elements, dtype) else None


def _is_exact(array: np.ndarray, elements: list[object], dtype: str) -> bool:
    """Whether a type holds all numbers exactly."""
    if not array.size or dtype == "bool":
        return True
    limit = _EXACT_INTEGERS.get(dtype, 0)
    low, high = _INTEGER_RANGES.get(dtype, (-limit, limit))
    if low <= array.min() and array.max() <= high:
        return True
    if dtype in _INTEGER_RANGES:
        return False
    sizes = np.abs(array)
    large = np.flatnonzero((sizes > limit) & np.isfinite(sizes)).tolist()
    return not any(type(elements[at]) is int or sizes[at] > _LARGEST[dtype] for at in large)


def _first_wrong(elements: list[object], dtype: str) -> object:
    """Returns the first element that no tensor of this dtype takes, where there is one."""
    chunks = (elements[start : start + _CHUNK] for start in range(0, len(elements), _CHUNK))
    chunk = next(each for each in chunks if _numbers(each, dtype) is None)
    return next(each for each in chunk if _numbers([each], dtype) is None)


def _strings(elements: list[object], rank: int) -> np.ndarray:
    return string_array([_bytes(each, rank) for each in elements])


def _bytes(value: object, rank: int) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return decode_base64(value)
    raise _element_error(value, "string", rank)


def _element_error(value: object, dtype: str, rank: int) -> ServingError:
    if isinstance(value, list):
        return invalid_argument(f"Encountered list at unexpected level: {rank} expected < {rank}")
    text = value_text(value)
    if dtype in _EXACT_INTEGERS and type_name(value) == "Number":
        return invalid_argument(f"Cannot convert JSON value: {text} to {dtype} without loss of precision.")
    if is_json_type(dtype) or isinstance(value, dict):
        return invalid_argument(f"JSON Value: {text} Type: {type_name(value)} is not of expected type: {dtype}")
    return ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {text} to type: {dtype}")


def _writable_type(array: np.ndarray) -> str:
    dtype = dtype_name(array)
    if not is_json_type(dtype):
        raise invalid_argument(f"Failed to write JSON value for tensor type: {dtype}")
    return dtype


def _string_values(value: object, as_base64: bool) -> object:
    if isinstance(value, list):
        return [_string_values(each, as_base64) for each in value]
    data = value if isinstance(value, bytes) else str(value).encode()
    # TensorFlow Serving copies bytes that are not UTF-8 into its JSON, which no parser takes then.
    return {"b64": base64.b64encode(data).decode()} if as_base64 else data.decode("utf-8", "replace")
