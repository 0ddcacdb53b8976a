"""NumPy's files <-> arrays: .npy for one, .npz for several by their names. Nothing in them is ever unpickled."""

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping, Set

import numpy as np
from numpy.lib import format as npy_format

from serving.errors import ServingError, invalid_argument
from serving.wire.requests import LARGEST_EXPANSION
from serving.wire.signatures import DTYPES, string_array

_LARGEST_HEADER = 10_000  # bytes, NumPy's own limit
_MOST_ARRAYS = 1000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what np.savez and np.savez_compressed write
_ENTRY = b"PK\x01\x02"  # begins every entry in the directory of a .zip file
_SUFFIX = ".npy"
_STORED_BFLOAT16 = np.dtype("V2")  # as NumPy writes a type that it does not know
_HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
_LARGEST_CODE_POINT = 0x10FFFF


def read_npy(body: bytes) -> np.ndarray:
    """Returns the array in a .npy file, in the memory of the body if possible. Raises ServingError if there is none."""
    file = io.BytesIO(body)
    try:
        read_header = _HEADERS[npy_format.read_magic(file)]
        shape, is_fortran, dtype = read_header(file, max_header_size=_LARGEST_HEADER)
    except Exception as error:  # of NumPy, and of Python's tokenizer and parser, which read the literal in a header
        raise _npy_error("its header makes no sense") from error
    try:
        return _read_values(body, file.tell(), shape, dtype).reshape(shape, order="F" if is_fortran else "C")
    except ValueError as error:
        raise _npy_error(str(error)) from error


def read_npz(
    body: bytes, check: Callable[[Set[str]], None] = lambda names: None, largest: int = LARGEST_EXPANSION
) -> dict[str, np.ndarray]:
    """Returns the arrays in a .npz file by their names, once `check` has accepted the names.

    Raises ServingError if the file is damaged, or inflates to more than `largest` bytes.
    """
    if body.count(_ENTRY) > _MOST_ARRAYS:  # before there is an object for each
        raise invalid_argument(f"Expected a .npz file: it has more than {_MOST_ARRAYS} arrays")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            check({_name(member) for member in archive.infolist()})
            return _read_members(archive, min(largest, LARGEST_EXPANSION))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise invalid_argument(f"Expected a .npz file: {error}") from error


def write_npy(array: np.ndarray) -> bytes:
    """Returns the .npy file of an array. All strings get the length of the longest, as in NumPy's arrays."""
    file = io.BytesIO()
    np.save(file, _fixed_length(array) if array.dtype.kind == "O" else array, allow_pickle=False)
    return file.getvalue()


def write_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the .npz file of arrays by their names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(name + _SUFFIX, write_npy(array))
    return file.getvalue()


def _npy_error(reason: str) -> ServingError:
    return invalid_argument(f"Expected a .npy file of numbers, truth values or strings: {reason}")


def _read_values(body: bytes, start: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.ndarray:
    if dtype == _STORED_BFLOAT16:
        dtype = DTYPES["bfloat16"].numpy
    elif dtype.kind not in "biufcSU":
        raise ValueError(f"there is no tensor of {dtype}")
    size = math.prod(shape)
    # Checked before any memory is taken: a header may claim what it likes.
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or size * dtype.itemsize != len(body) - start:
        raise ValueError(f"{len(body) - start} bytes do not make shape {shape} of {dtype}")
    array = np.frombuffer(body, dtype, size, start) if size else np.zeros(0, dtype)
    if dtype.kind == "U" and array.view(dtype.byteorder + "u4").max(initial=0) > _LARGEST_CODE_POINT:
        raise ValueError("a string holds what is no character")
    if dtype.kind not in "SU":
        return array.astype(dtype.newbyteorder("="), copy=False)
    return string_array([each if isinstance(each, bytes) else each.encode() for each in array.tolist()])


def _fixed_length(array: np.ndarray) -> np.ndarray:
    values = [each if isinstance(each, bytes) else str(each).encode() for each in array.reshape(-1).tolist()]
    longest = max(map(len, values), default=1) or 1
    if longest * len(values) > LARGEST_EXPANSION:
        raise invalid_argument(f"Strings of up to {longest} bytes do not fit a .npy file: ask for application/json.")
    return np.array(values, f"S{longest}").reshape(array.shape)


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(_SUFFIX)


def _read_members(archive: zipfile.ZipFile, largest: int) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    left = largest
    for member in archive.infolist():
        if member.compress_type not in _METHODS:
            raise ValueError("its arrays are neither stored nor deflated")
        name = _name(member)
        if name in arrays:
            raise ValueError(f"two arrays are named {name}")
        with archive.open(member) as file:
            content = file.read(left + 1)
        left -= len(content)
        if left < 0:
            raise ValueError(f"it inflates to more than {largest} bytes")
        arrays[name] = read_npy(content)
    return arrays
