"""What callers have -> the arrays that a signature takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.client.pictures import encoded, is_picture, pixels
from serving.wire.signatures import NUMPY_TYPES, Signature, TensorInfo


def are_arrays(inputs: Any) -> bool:
    """Whether all inputs are arrays with names, which are sent as they are."""
    # A dict is known at once; whether anything else is a Mapping takes a search.
    return isinstance(inputs, dict | Mapping) and all(isinstance(value, np.ndarray) for value in inputs.values())


def to_arrays(inputs: Any, signature: Signature) -> dict[str, np.ndarray]:
    """The array of each input; one without a name goes to a signature's only input.

    Raises:
        ValueError: The signature has no input of that name, or the values make no array of its type.
        OSError: A file cannot be read.
    """
    named = inputs if isinstance(inputs, Mapping) else {_only_input(signature): inputs}
    return {name: _to_array(value, _info(signature, name)) for name, value in named.items()}


def _only_input(signature: Signature) -> str:
    if len(signature.inputs) != 1:
        names = ", ".join(sorted(signature.inputs))
        raise ValueError(f"signature {signature.name} takes several inputs: give a dict of {names}")
    return next(iter(signature.inputs))


def _info(signature: Signature, name: str) -> TensorInfo:
    if name not in signature.inputs:
        names = ", ".join(sorted(signature.inputs)) or "none"
        raise ValueError(f"signature {signature.name} has no input {name}; its inputs: {names}")
    return signature.inputs[name]


def _to_array(value: Any, info: TensorInfo) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if is_picture(value):
        array = _picture(value, info)
        is_one_example = info.shape is not None and array.ndim == len(info.shape) - 1
        return array[np.newaxis] if is_one_example else array
    dtype = NUMPY_TYPES[info.dtype]
    if isinstance(value, list | tuple) and any(map(is_picture, value)):
        return np.stack([_picture(each, info) if is_picture(each) else np.asarray(each, dtype) for each in value])
    return np.asarray(value, dtype)


def _picture(value: Any, info: TensorInfo) -> np.ndarray:
    if info.dtype == "string":
        return np.array(encoded(value), object)
    return pixels(value, info.shape[-1] if info.shape else None).astype(NUMPY_TYPES[info.dtype])
