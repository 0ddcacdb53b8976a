"""What a model takes and gives: its signatures, named and typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

DEFAULT_SIGNATURE = "serving_default"

# TensorFlow's words for its types (DataTypeString in framework/types.cc), which its error texts use.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "half": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
    "string": np.dtype(object),
}
_WORDS = {dtype: word for word, dtype in NUMPY_TYPES.items()}


def type_word(array: np.ndarray) -> str:
    """TensorFlow's word for the type of an array; arrays of bytes or str are strings."""
    dtype = array.dtype
    return "string" if dtype.kind in "OSU" else _WORDS.get(dtype) or str(dtype)


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
