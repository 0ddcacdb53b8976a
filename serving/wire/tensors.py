"""TensorFlow's own TensorProto <-> arrays."""

from typing import Any

import numpy as np
from tensorflow.core.framework import tensor_pb2

from serving.wire.tensor_fields import read_tensor as from_proto
from serving.wire.tensor_fields import write_tensor

__all__ = ["from_proto", "to_proto"]


def to_proto(array: np.ndarray, as_content: bool = False) -> Any:
    """The message of an array, with its values in the typed field (float_val, int64_val, ...) or as tensor_content."""
    proto = tensor_pb2.TensorProto()
    write_tensor(array, proto, as_content)
    return proto
