"""TensorProtos <-> arrays, as Tensor::FromProto and Tensor::AsProtoField do it.

Messages of any descriptor pool are read and written: TensorFlow's own, and those of a client without TensorFlow.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from serving.wire.signatures import DTYPE_NAMES, DTYPES, MOST_DIMENSIONS, dtype_name, string_array

TensorProto: TypeAlias = Any
"""A TensorProto of whichever pool."""

_LARGEST_MESSAGE = 2**31 - 1  # bytes: no honest repetition makes more
_LARGEST_SIZE = 2**63 - 1  # bytes of a NumPy array, with sizes of 0 taken for 1
_STRING_SIZE = 128  # bytes that a string takes on its way to TensorFlow besides its own, which is copied for each
_LONGEST_LENGTH = 5  # bytes of a varint of 32 bits
_LENGTH_DELIMITED = 2  # the wire type of bytes and of packed numbers


class Values(NamedTuple):
    """The values of a tensor, fewer than its shape has where the last of them is to be repeated."""

    given: np.ndarray
    shape: tuple[int, ...]

    @property
    def num_missing(self) -> int:
        """The number of values to be filled in."""
        return max(0, math.prod(self.shape) - len(self.given))

    @property
    def missing_size(self) -> int:
        """The bytes that filling them in takes."""
        is_string = self.given.dtype.kind == "O"
        return self.num_missing * (_STRING_SIZE + len(self._last()) if is_string else self.given.dtype.itemsize)

    def filled(self) -> np.ndarray:
        """Returns the array."""
        # FromProtoField in framework/tensor.cc: no values means zeros, too few repeat the last, too many are cut.
        flat = self.given
        if self.num_missing:
            flat = np.concatenate([flat, np.full(self.num_missing, self._last(), flat.dtype)])
        return flat[: math.prod(self.shape)].reshape(self.shape)

    def _last(self) -> Any:
        if len(self.given):
            return self.given[-1]
        return b"" if self.given.dtype.kind == "O" else 0


def read_tensor(proto: TensorProto) -> np.ndarray:
    """Returns the array in a message. Raises ValueError where dtype, shape and values do not fit."""
    values = read_values(proto)
    if values.missing_size > _LARGEST_MESSAGE:
        raise ValueError(f"{len(values.given)} values do not make shape {values.shape}")
    return values.filled()


def read_values(proto: TensorProto) -> Values:
    """Returns the values in a message, and their shape. Raises ValueError where these and the dtype do not fit."""
    described = proto.tensor_shape
    if len(described.dim) > MOST_DIMENSIONS:
        raise ValueError(f"There is no array of {len(described.dim)} dimensions")
    shape, dtype = tuple(dim.size for dim in described.dim), DTYPE_NAMES.get(proto.dtype)
    if dtype is None or described.unknown_rank or min(shape, default=0) < 0:
        raise ValueError(f"There is no tensor of type {proto.dtype} and shape {shape}")
    if math.prod(max(1, size) for size in shape) * DTYPES[dtype].numpy.itemsize > _LARGEST_SIZE:  # [0, 2**62] is empty
        raise ValueError(f"There is no array of shape {shape}")
    content = proto.tensor_content
    return Values(_content(content, dtype, math.prod(shape)) if content else _typed_values(proto, dtype), shape)


def declared_shape(proto: Any) -> tuple[int | None, ...] | None:
    """Returns the shape in a message, with None for each size that is free; None for any shape."""
    return None if proto.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in proto.dim)


def write_tensor(array: np.ndarray, proto: TensorProto, as_content: bool = False) -> None:
    """Puts an array into an empty message: in its typed field (float_val, int64_val, ...) or as tensor_content.

    Raises ValueError where there is no tensor of its dtype.
    """
    dtype = dtype_name(array)
    if dtype not in DTYPES:
        raise ValueError(f"There is no tensor of type {dtype}")
    proto.dtype = DTYPES[dtype].number
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field = DTYPES[dtype].field
    if dtype == "string":
        proto.string_val.extend(each if isinstance(each, bytes) else str(each).encode() for each in array.flat)
    elif as_content:
        proto.tensor_content = _little_endian(array)
    elif array.dtype.kind in "fc" and field != "half_val":
        _write_packed(_little_endian(array), proto, field)
    else:
        flat = np.ascontiguousarray(array).reshape(-1)
        values = flat.view(np.uint16) if field == "half_val" else flat
        getattr(proto, field).extend(values.tolist())


def _write_packed(data: bytes, proto: TensorProto, field: str) -> None:
    # Packed floats lie in the message as they lie in memory. Element by element, an image takes milliseconds.
    head = bytearray([proto.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED])
    length = len(data)
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    proto.MergeFromString(bytes(head) + data)


def _little_endian(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _typed_values(proto: TensorProto, name: str) -> np.ndarray:
    dtype, values = DTYPES[name], getattr(proto, DTYPES[name].field)
    if name == "string":
        return string_array(list(values))
    flat = np.asarray(values, dtype.stored)
    if dtype.field == "int_val":
        return flat.astype(dtype.numpy)  # cut to its width, as TensorFlow cuts it
    values_each = dtype.numpy.itemsize // dtype.stored.itemsize  # two where numbers are complex
    return flat[: len(flat) // values_each * values_each].view(dtype.numpy)


def _content(content: bytes, dtype: str, size: int) -> np.ndarray:
    if dtype == "string":
        return string_array(_decode_strings(content, size))
    if len(content) != size * DTYPES[dtype].numpy.itemsize:
        raise ValueError(f"{len(content)} bytes do not make {size} values of type {dtype}")
    return np.frombuffer(content, DTYPES[dtype].numpy)


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
    """Returns the number that begins at a position, and the position behind it."""
    value = 0
    for shift, byte in enumerate(content[position : position + _LONGEST_LENGTH]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, position + shift + 1
    raise ValueError("The lengths of the strings end too early, or one of them is no number of 32 bits")
