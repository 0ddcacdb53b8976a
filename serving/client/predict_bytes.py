"""A PredictRequest as it is sent, written without its message, in which a large array would be copied twice more.

What stands before the values of an array follows from its name, type and shape, and is remembered.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.client.messages import PredictRequest, TensorProto
from serving.wire.requests import ModelSpec
from serving.wire.signatures import NUMPY_TYPES, type_word
from serving.wire.tensor_fields import content_bytes, describe_tensor, field_head, write_tensor

_INPUTS, _KEY, _VALUE = 2, 1, 2  # a map is a repeated message of keys and values
_TENSOR_CONTENT = 4
_LONGEST = 2**31 - 1  # bytes: no message can be longer


def write_predict(spec: ModelSpec, inputs: Mapping[str, np.ndarray], output_names: Sequence[str]) -> bytes:
    """A request to run a signature. Raises ValueError where no tensor holds an array."""
    parts = [_head(spec, tuple(output_names))]
    for name, array in inputs.items():
        word = type_word(array)
        if word == "string":
            parts.append(_strings(name, array))
        else:
            parts += _before_values(name, word, array.shape), content_bytes(array)
    return b"".join(parts)


def write_spec(spec: ModelSpec, message: Any) -> None:
    """Puts which model is meant into an empty ModelSpec."""
    message.name = spec.name
    message.signature_name = spec.signature_name
    if spec.version is not None:
        message.version.value = spec.version
    elif spec.label is not None:
        message.version_label = spec.label


@functools.lru_cache
def _head(spec: ModelSpec, output_names: Sequence[str]) -> bytes:
    message = PredictRequest(output_filter=output_names)
    write_spec(spec, message.model_spec)
    return message.SerializeToString()


@functools.lru_cache
def _before_values(name: str, word: str, shape: Sequence[int]) -> bytes:
    proto = TensorProto()
    describe_tensor(word, shape, proto)
    size = math.prod(shape) * NUMPY_TYPES[word].itemsize
    if size > _LONGEST:
        raise ValueError(f"Input {name} takes {size} bytes, and a message {_LONGEST} at most")
    tensor = proto.SerializeToString() + field_head(_TENSOR_CONTENT, size)
    key = field_head(_KEY, len(name.encode())) + name.encode()
    value = field_head(_VALUE, len(tensor) + size) + tensor
    return field_head(_INPUTS, len(key) + len(value) + size) + key + value


def _strings(name: str, array: np.ndarray) -> bytes:
    message = PredictRequest()
    write_tensor(array, message.inputs[name])
    return message.SerializeToString()  # messages one after another parse as one
