"""The part of TensorFlow's C API (tensorflow/c/c_api.h) that runs graphs without a Python object per node.

Calls that take time release Python's lock, so that other threads answer meanwhile. Shorter ones keep it, as to hand it
over would take longer.
"""

import ctypes
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.framework.tensor_pb2 import TensorProto

from serving.errors import Code, ServingError, invalid_argument
from serving.wire.signatures import DTYPE_NAMES, DTYPES, dtype_name
from serving.wire.tensor_proto import write_tensor

_STRING_SIZE = 24  # bytes of a TF_TString (core/platform/ctstring_internal.h)
_FUNCTION = re.compile(r"\{\{function_node [^}]*\}\} ?")  # a place in the graph, in generated names


class Buffer(ctypes.Structure):
    """TF_Buffer: the bytes of a message."""

    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class Output(ctypes.Structure):
    """TF_Output: a tensor of a graph, as an output of an operation."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


def _library_path() -> str:
    # libtensorflow_cc.so.2 on Linux, libtensorflow_cc.2.dylib on macOS; the import of TensorFlow has opened it.
    return str(next(Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*")))


_KEEPING_LOCK = ctypes.PyDLL(_library_path())
_WITHOUT_LOCK = ctypes.CDLL(_library_path())


def _declare(library: ctypes.CDLL, name: str, result: object, arguments: tuple[object, ...]) -> Callable[..., Any]:
    function: Any = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


def _quick(name: str, result: object, *arguments: object) -> Callable[..., Any]:
    return _declare(_KEEPING_LOCK, name, result, arguments)


def _slow(name: str, result: object, *arguments: object) -> Callable[..., Any]:
    return _declare(_WITHOUT_LOCK, name, result, arguments)


_BUFFER, _TENSORS, _OUTPUTS = POINTER(Buffer), POINTER(c_void_p), POINTER(Output)

TF_NewStatus = _quick("TF_NewStatus", c_void_p)
TF_GetCode = _quick("TF_GetCode", c_int, c_void_p)
TF_Message = _quick("TF_Message", c_char_p, c_void_p)
TF_DeleteStatus = _quick("TF_DeleteStatus", None, c_void_p)

TF_NewBuffer = _quick("TF_NewBuffer", _BUFFER)
TF_NewBufferFromString = _quick("TF_NewBufferFromString", _BUFFER, c_char_p, c_size_t)
TF_DeleteBuffer = _quick("TF_DeleteBuffer", None, _BUFFER)

TF_AllocateTensor = _quick("TF_AllocateTensor", c_void_p, c_int, POINTER(c_int64), c_int, c_size_t)
TF_TensorFromProto = _quick("TF_TensorFromProto", None, _BUFFER, c_void_p, c_void_p)
TF_TensorType = _quick("TF_TensorType", c_int, c_void_p)
TF_NumDims = _quick("TF_NumDims", c_int, c_void_p)
TF_Dim = _quick("TF_Dim", c_int64, c_void_p, c_int)
TF_TensorData = _quick("TF_TensorData", c_void_p, c_void_p)
TF_TensorByteSize = _quick("TF_TensorByteSize", c_size_t, c_void_p)
TF_DeleteTensor = _quick("TF_DeleteTensor", None, c_void_p)
TF_StringGetDataPointer = _quick("TF_StringGetDataPointer", c_void_p, c_void_p)
TF_StringGetSize = _quick("TF_StringGetSize", c_size_t, c_void_p)

TF_NewGraph = _quick("TF_NewGraph", c_void_p)
TF_GraphOperationByName = _quick("TF_GraphOperationByName", c_void_p, c_void_p, c_char_p)
TF_DeleteGraph = _slow("TF_DeleteGraph", None, c_void_p)

TF_NewSessionOptions = _quick("TF_NewSessionOptions", c_void_p)
TF_SetConfig = _quick("TF_SetConfig", None, c_void_p, c_char_p, c_size_t, c_void_p)
TF_DeleteSessionOptions = _quick("TF_DeleteSessionOptions", None, c_void_p)
TF_LoadSessionFromSavedModel = _slow(
    "TF_LoadSessionFromSavedModel",
    c_void_p,
    *(c_void_p, _BUFFER, c_char_p, POINTER(c_char_p), c_int, c_void_p, _BUFFER, c_void_p),
)
TF_SessionRun = _slow(
    "TF_SessionRun",
    None,
    *(c_void_p, _BUFFER),  # the session, its RunOptions
    *(_OUTPUTS, _TENSORS, c_int),  # what is fed
    *(_OUTPUTS, _TENSORS, c_int),  # what is fetched
    *(c_void_p, c_int),  # operations without output
    *(_BUFFER, c_void_p),  # RunMetadata, status
)
TF_DeleteSession = _slow("TF_DeleteSession", None, c_void_p, c_void_p)


def forbid_xla() -> None:
    """Lets every function that XLA would compile fail, in this process and for good, as TensorFlow Serving does."""
    _quick("_ZN10tensorflow21DisableXlaCompilationEv", None)()  # of C++: the C API has no such function


@contextmanager
def checked() -> Iterator[int]:
    """A status for calls to fill. Raises ServingError with the runtime's own code and text if they fail."""
    status = TF_NewStatus()
    try:
        yield status
        code = Code(TF_GetCode(status))
        if code is not Code.OK:
            raise ServingError(code, _FUNCTION.sub("", TF_Message(status).decode("utf-8", "replace")))
    finally:
        TF_DeleteStatus(status)


@contextmanager
def buffer_of(message: Message) -> Iterator[int]:
    """A serialized message."""
    content = message.SerializeToString()
    buffer = TF_NewBufferFromString(content, len(content))
    try:
        yield buffer
    finally:
        TF_DeleteBuffer(buffer)


class Tensor:
    """A TF_Tensor, deleted with the last array on its memory. Raises ServingError if there was no room for it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        size, address = TF_TensorByteSize(handle), TF_TensorData(handle)
        if size and not address:
            raise ServingError(Code.RESOURCE_EXHAUSTED, f"There is no memory for a tensor of {size} bytes")
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address or 0, False)}

    def __del__(self) -> None:
        TF_DeleteTensor(self.handle)


def from_array(array: np.ndarray) -> Tensor:
    """A tensor with a copy of an array. Raises ServingError if the runtime has no such type."""
    word = dtype_name(array)
    if word not in DTYPES:
        raise invalid_argument(f"There is no tensor of type {word}")
    if word == "string":
        return _from_strings(array)
    dimensions = (c_int64 * array.ndim)(*array.shape)
    tensor = Tensor(TF_AllocateTensor(DTYPES[word].number, dimensions, array.ndim, array.nbytes))
    if array.size:
        np.copyto(_memory(tensor, array.dtype, array.shape), array)
    return tensor


def to_array(tensor: Tensor) -> np.ndarray:
    """The array of a tensor, on its memory; strings are bytes. Raises ServingError if NumPy has no such type."""
    handle = tensor.handle
    number = TF_TensorType(handle)
    shape = tuple(TF_Dim(handle, axis) for axis in range(TF_NumDims(handle)))
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
    tensor = Tensor(TF_AllocateTensor(DTYPES["string"].number, (c_int64 * 1)(0), 1, 0))
    message = TensorProto()
    write_tensor(array, message)
    with checked() as status, buffer_of(message) as proto:
        TF_TensorFromProto(proto, tensor.handle, status)
    return tensor


def _strings(tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    first = TF_TensorData(tensor.handle)
    array = np.empty(math.prod(shape), object)
    for index in range(array.size):
        string = first + index * _STRING_SIZE
        array[index] = ctypes.string_at(TF_StringGetDataPointer(string), TF_StringGetSize(string))
    return array.reshape(shape)
