"""What a model takes and gives: its signatures, named and typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

DEFAULT_SIGNATURE = "serving_default"


class DType(NamedTuple):
    """A dtype: its number in tensorflow.DataType, and the field of a TensorProto for its values.

    The field holds `stored` values, which are narrower or wider than those of the array for some dtypes.
    """

    number: int
    numpy: np.dtype[Any]
    field: str
    stored: np.dtype[Any]


def _dtype(number: int, numpy: type, field: str, stored: type | None = None) -> DType:
    return DType(number, np.dtype(numpy), field, np.dtype(stored or numpy))


DTYPES = {
    "float": _dtype(1, np.float32, "float_val"),
    "double": _dtype(2, np.float64, "double_val"),
    "half": _dtype(19, np.float16, "half_val", np.uint16),
    "bfloat16": _dtype(14, ml_dtypes.bfloat16, "half_val", np.uint16),
    "int8": _dtype(6, np.int8, "int_val", np.int32),
    "int16": _dtype(5, np.int16, "int_val", np.int32),
    "int32": _dtype(3, np.int32, "int_val", np.int32),
    "int64": _dtype(9, np.int64, "int64_val"),
    "uint8": _dtype(4, np.uint8, "int_val", np.int32),
    "uint16": _dtype(17, np.uint16, "int_val", np.int32),
    "uint32": _dtype(22, np.uint32, "uint32_val"),
    "uint64": _dtype(23, np.uint64, "uint64_val"),
    "bool": _dtype(10, np.bool_, "bool_val"),
    "complex64": _dtype(8, np.complex64, "scomplex_val", np.float32),
    "complex128": _dtype(18, np.complex128, "dcomplex_val", np.float64),
    "string": _dtype(7, np.object_, "string_val"),
}
"""The dtypes by TensorFlow's names for them (DataTypeString in framework/types.cc), which its error texts use."""

DTYPE_NAMES = {dtype.number: name for name, dtype in DTYPES.items()}
_NAMES_BY_NUMPY = {dtype.numpy: name for name, dtype in DTYPES.items()}


def dtype_name(array: np.ndarray) -> str:
    """Returns TensorFlow's name for the dtype of an array. Arrays of bytes or str are strings."""
    dtype = array.dtype
    return "string" if dtype.kind in "OSU" else _NAMES_BY_NUMPY.get(dtype) or str(dtype)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a signature: its name in the graph, TensorFlow's word for its type, its declared shape."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Feature:
    """A feature of a tf.Example: TensorFlow's word for its type, how many values, and whether there must be any."""

    dtype: str
    num_values: int
    is_required: bool


@dataclass(frozen=True)
class Signature:
    """A way to call a model. Inputs with a default may be left out; `definition` is the SignatureDef.

    `features` are those of the tf.Examples that it parses, by name.
    """

    name: str
    method_name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    defaults: Mapping[str, np.ndarray] = field(default_factory=dict)
    definition: Any = None
    features: Mapping[str, Feature] = field(default_factory=dict)
