"""The fields of a TensorProto <-> arrays, as Tensor::FromProto and Tensor::AsProtoField do it.

Nothing here imports TensorFlow: messages of whichever descriptor pool are read and written, those of a client that has
no TensorFlow among them.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from serving.wire.signatures import NUMPY_TYPES, type_word

DATA_TYPES = {
    "float": 1,
    "double": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "string": 7,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "complex128": 18,
    "half": 19,
    "uint32": 22,
    "uint64": 23,
}
"""The numbers of tensorflow.DataType by TensorFlow's words for its types."""

TYPE_WORDS = {number: word for word, number in DATA_TYPES.items()}

_LARGEST_MESSAGE = 2**31 - 1  # bytes: no honest repetition makes more
_MOST_DIMENSIONS = 64  # of a NumPy array
_LARGEST_SIZE = 2**63 - 1  # bytes of a NumPy array, with sizes of 0 taken for 1
_STRING_SIZE = 128  # bytes that a string takes on its way to TensorFlow besides its own, which is copied for each
_LONGEST_LENGTH = 5  # bytes of a varint of 32 bits
# The field of TensorProto that holds the values of each type.
_FIELDS = {
    "float": "float_val",
    "double": "double_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "string": "string_val",
    "half": "half_val",
    "bfloat16": "half_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "int_val"),
}
# What a value of the field is, where it differs from an element of the array.
_FIELD_TYPES: dict[str, np.dtype[Any]] = {
    "int_val": np.dtype(np.int32),
    "half_val": np.dtype(np.uint16),
    "scomplex_val": np.dtype(np.float32),
    "dcomplex_val": np.dtype(np.float64),
}
# Packed floats lie in the message as they lie in memory. Element by element, an image takes milliseconds.
_PACKED_FIELDS = {"float_val": 5, "double_val": 6, "scomplex_val": 9, "dcomplex_val": 12}
_WORTH_UNPACKING = 64  # values; fewer are read sooner one by one
_LENGTH_DELIMITED = 2


class Values(NamedTuple):
    """The values of a tensor, which are fewer than its shape has where the last of them is to be repeated."""

    given: np.ndarray
    shape: tuple[int, ...]

    @property
    def num_missing(self) -> int:
        """How many are to be filled in."""
        return max(0, math.prod(self.shape) - len(self.given))

    @property
    def missing_size(self) -> int:
        """The bytes that filling them in takes."""
        is_string = self.given.dtype.kind == "O"
        size_each = _STRING_SIZE + len(self._last()) if is_string else self.given.dtype.itemsize
        return self.num_missing * size_each

    def filled(self) -> np.ndarray:
        """The array."""
        # FromProtoField in framework/tensor.cc: no values means zeros, too few repeat the last, too many are cut.
        flat = self.given
        if self.num_missing:
            flat = np.concatenate([flat, np.full(self.num_missing, self._last(), flat.dtype)])
        return flat[: math.prod(self.shape)].reshape(self.shape)

    def _last(self) -> Any:
        if len(self.given):
            return self.given[-1]
        return b"" if self.given.dtype.kind == "O" else 0


def read_tensor(proto: Any) -> np.ndarray:
    """The array in a message. Raises ValueError where type, shape and values do not fit."""
    values = read_values(proto)
    if values.missing_size > _LARGEST_MESSAGE:
        raise ValueError(f"{len(values.given)} values do not make shape {values.shape}")
    return values.filled()


def read_values(proto: Any) -> Values:
    """The values in a message, and their shape. Raises ValueError where these and the type do not fit."""
    described = proto.tensor_shape
    if len(described.dim) > _MOST_DIMENSIONS:
        raise ValueError(f"There is no array of {len(described.dim)} dimensions")
    shape, word = tuple(dim.size for dim in described.dim), TYPE_WORDS.get(proto.dtype)
    if word is None or described.unknown_rank or min(shape, default=0) < 0:
        raise ValueError(f"There is no tensor of type {proto.dtype} and shape {shape}")
    if math.prod(max(1, size) for size in shape) * NUMPY_TYPES[word].itemsize > _LARGEST_SIZE:  # [0, 2**62] is empty
        raise ValueError(f"There is no array of shape {shape}")
    content = proto.tensor_content
    return Values(_content(content, word, math.prod(shape)) if content else _typed_values(proto, word), shape)


def write_tensor(array: np.ndarray, proto: Any, as_content: bool = False) -> None:
    """Puts an array into an empty message: in its typed field (float_val, int64_val, ...) or as tensor_content."""
    word = type_word(array)
    describe_tensor(word, array.shape, proto)
    field = _FIELDS[word]
    if as_content and word != "string":
        proto.tensor_content = content_bytes(array)
    elif field in _PACKED_FIELDS:
        data = content_bytes(array)
        proto.MergeFromString(field_head(_PACKED_FIELDS[field], len(data)) + data)
    elif word == "string":
        proto.string_val.extend(each if isinstance(each, bytes) else str(each).encode() for each in array.flat)
    else:
        flat = np.ascontiguousarray(array).reshape(-1)
        values = flat.view(np.uint16) if field == "half_val" else flat
        getattr(proto, field).extend(values.tolist())


def describe_tensor(word: str, shape: Sequence[int], proto: Any) -> None:
    """Puts a type and a shape into an empty message. Raises ValueError where there is no tensor of that type."""
    if word not in DATA_TYPES:
        raise ValueError(f"There is no tensor of type {word}")
    proto.dtype = DATA_TYPES[word]
    for size in shape:
        proto.tensor_shape.dim.add(size=size)


def content_bytes(array: np.ndarray) -> bytes:
    """The values as tensor_content and packed fields hold them."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def field_head(number: int, size: int) -> bytes:
    """What stands before the bytes of a field that is so many bytes long."""
    return bytes([number << 3 | _LENGTH_DELIMITED]) + _varint(size)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _typed_values(proto: Any, word: str) -> np.ndarray:
    field, dtype = _FIELDS[word], NUMPY_TYPES[word]
    values = getattr(proto, field)
    if word == "string":
        return _objects(values)
    stored = _FIELD_TYPES.get(field, dtype)
    packed = field in _PACKED_FIELDS and len(values) >= _WORTH_UNPACKING
    flat = _unpacked(proto, field, stored) if packed else np.fromiter(values, stored, len(values))
    if field == "int_val":
        return flat.astype(dtype)  # cut to its width, as TensorFlow cuts it
    if stored is dtype:
        return flat
    values_each = dtype.itemsize // stored.itemsize  # two where numbers are complex
    return flat[: len(flat) // values_each * values_each].view(dtype)


def _unpacked(proto: Any, field: str, stored: np.dtype[Any]) -> np.ndarray:
    values = getattr(proto, field)
    alone = type(proto)()
    getattr(alone, field).MergeFrom(values)
    data = alone.SerializeToString()  # key, length, and then nothing but the values
    return np.frombuffer(data, stored.newbyteorder("<"), len(values), len(data) - len(values) * stored.itemsize)


def _content(content: bytes, word: str, size: int) -> np.ndarray:
    if word == "string":
        return _objects(_decode_strings(content, size))
    dtype = NUMPY_TYPES[word]
    if len(content) != size * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes do not make {size} values of type {word}")
    return np.frombuffer(content, dtype)


def _decode_strings(content: bytes, size: int) -> list[bytes]:
    # port::DecodeStringList: all lengths as varints, then all strings.
    lengths, position = [], 0
    for _ in range(size):
        length, position = _read_varint(content, position)
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ValueError("The strings are not as long as they say")
    ends = np.cumsum([position, *lengths]).tolist()
    return [content[start:end] for start, end in pairwise(ends)]


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """The number that begins at a position, and the position behind it."""
    value = 0
    for shift, byte in enumerate(content[position : position + _LONGEST_LENGTH]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, position + shift + 1
    raise ValueError("The lengths of the strings end too early, or one of them is no number of 32 bits")


def _objects(values: Iterable[bytes]) -> np.ndarray:
    listed = list(values)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array
