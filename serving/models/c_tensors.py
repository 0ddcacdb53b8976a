"""Tensors of the C API <-> arrays."""

import ctypes
import math
from ctypes import c_int64
from typing import Any

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto

from serving.errors import Code, ServingError, invalid_argument
from serving.models import c_api
from serving.wire.signatures import DTYPE_NAMES, DTYPES, dtype_name
from serving.wire.tensor_proto import write_tensor

_STRING_SIZE = 24  # bytes of a TF_TString (core/platform/ctstring_internal.h)


class Tensor:
    """A TF_Tensor, deleted with the last array on its memory. Raises ServingError if there was no room for it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        size, address = c_api.TF_TensorByteSize(handle), c_api.TF_TensorData(handle)
        if size and not address:
            raise ServingError(Code.RESOURCE_EXHAUSTED, f"There is no memory for a tensor of {size} bytes")
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address or 0, False)}

    def __del__(self) -> None:
        c_api.TF_DeleteTensor(self.handle)


def from_array(array: np.ndarray) -> Tensor:
    """A tensor with a copy of an array. Raises ServingError if the runtime has no such type."""
    word = dtype_name(array)
    if word not in DTYPES:
        raise invalid_argument(f"There is no tensor of type {word}")
    if word == "string":
        return _from_strings(array)
    dimensions = (c_int64 * array.ndim)(*array.shape)
    tensor = Tensor(c_api.TF_AllocateTensor(DTYPES[word].number, dimensions, array.ndim, array.nbytes))
    if array.size:
        np.copyto(_memory(tensor, array.dtype, array.shape), array)
    return tensor


def to_array(tensor: Tensor) -> np.ndarray:
    """The array of a tensor, on its memory; strings are bytes. Raises ServingError if NumPy has no such type."""
    handle = tensor.handle
    number = c_api.TF_TensorType(handle)
    shape = tuple(c_api.TF_Dim(handle, axis) for axis in range(c_api.TF_NumDims(handle)))
    if number not in DTYPE_NAMES:
        raise ServingError(Code.UNIMPLEMENTED, f"A tensor of type {number} can't be given back")
    word = DTYPE_NAMES[number]
    if not math.prod(shape):
        return np.empty(shape, DTYPES[word].numpy)
    if word == "string":
        return _strings(tensor, shape)
    return _memory(tensor, DTYPES[word].numpy, shape)


def _memory(tensor: Tensor, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(tensor).view(dtype).reshape(shape)


def _from_strings(array: np.ndarray) -> Tensor:
    # Parsed from a message: only the runtime itself makes strings that are freed with the tensor.
    tensor = Tensor(c_api.TF_AllocateTensor(DTYPES["string"].number, (c_int64 * 1)(0), 1, 0))
    message = TensorProto()
    write_tensor(array, message)
    with c_api.checked() as status, c_api.buffer_of(message) as proto:
        c_api.TF_TensorFromProto(proto, tensor.handle, status)
    return tensor


def _strings(tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    first = c_api.TF_TensorData(tensor.handle)
    array = np.empty(math.prod(shape), object)
    for index in range(array.size):
        string = first + index * _STRING_SIZE
        array[index] = ctypes.string_at(c_api.TF_StringGetDataPointer(string), c_api.TF_StringGetSize(string))
    return array.reshape(shape)
