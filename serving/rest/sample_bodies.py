"""Bodies of requests that a signature takes, made from the types and shapes of its inputs."""

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.errors import Code, ServingError
from serving.models.inference import CLASSIFY, REGRESS, Method
from serving.wire.binding import find_signature
from serving.wire.json_examples import decode_examples
from serving.wire.json_tensors import is_json_type
from serving.wire.signatures import DEFAULT_SIGNATURE, NUMPY_TYPES, Signature, TensorInfo

LARGEST_SAMPLE = 2**20
"""Values: an image of 512 by 512 pixels has fewer."""
_IMAGE_SIZE = 32  # of height and width, where an image may have any
_IMAGE_RANK = 4
# A PNG of 32x32 pixels.
_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAM0lEQVR42mM4oWGDHQXgQBU40ALsiGHUglELRi0YtWDUglELRi0Y"
    "tWDUglELRi0YKhYAAHrFoEyLh/uOAAAAAElFTkSuQmCC"
)
_IMAGE_WORDS = ("image", "_bytes", "jpeg", "jpg", "png", "photo", "picture")


def choose_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature of that name; without one the default, or else the first. Raises ServingError for another."""
    first = "" if DEFAULT_SIGNATURE in signatures else min(signatures, default="")
    return find_signature(signatures, name or first)


def method_of(signature: Signature) -> str:
    """The method that a signature is made for; exports of TF2 do not say it, so its inputs and outputs do."""
    if takes_examples(signature) and _has_outputs(CLASSIFY, signature, {"classes": "string", "scores": "float"}, 2):
        return "classify"
    if takes_examples(signature) and _has_outputs(REGRESS, signature, {"outputs": "float"}, 1):
        return "regress"
    return "predict"


def takes_examples(signature: Signature) -> bool:
    """Whether the one input of a signature can be serialized tf.Examples."""
    inputs = list(signature.inputs.values())
    return len(inputs) == 1 and inputs[0].dtype == "string" and (inputs[0].shape is None or len(inputs[0].shape) == 1)


def can_be_rows(signature: Signature) -> bool:
    """Whether requests and answers of a signature can be lists with an element an example."""
    tensors = (*signature.inputs.values(), *signature.outputs.values())
    sizes = {each.shape[0] for each in signature.inputs.values() if each.shape} - {None}
    return all(each.shape is None or each.shape for each in tensors) and len(sizes) <= 1


def sample_body(signature: Signature, most_values: int = LARGEST_SAMPLE) -> dict[str, Any]:
    """A body for `method_of` the signature.

    Raises:
        ServingError: JSON has nothing for the type of an input or an output, or the inputs have more values than that.
    """
    for name, info in sorted((*signature.inputs.items(), *signature.outputs.items())):
        if not is_json_type(info.dtype):
            raise ServingError(Code.UNIMPLEMENTED, f"JSON cannot hold {name}, which is of type {info.dtype}")
    num_values = _num_values(signature)
    if num_values > most_values:
        text = f'A body for signature "{signature.name}" has {num_values} values, and an example at most {most_values}'
        raise ServingError(Code.UNIMPLEMENTED, text)
    named = {} if signature.name == DEFAULT_SIGNATURE else {"signature_name": signature.name}
    if method_of(signature) != "predict":
        return {**named, "examples": [_sample_example(signature)]}
    columns = {name: _sample_tensor(name, info) for name, info in sorted(signature.inputs.items())}
    if takes_examples(signature) and signature.features:
        (name,) = columns
        columns[name] = [_serialized_example(signature)]
    if not can_be_rows(signature):
        return {**named, "inputs": columns}
    if len(columns) == 1:
        return {**named, "instances": next(iter(columns.values()))}
    return {**named, "instances": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _has_outputs(method: Method, signature: Signature, types: Mapping[str, str], rank: int) -> bool:
    try:
        outputs = {name: signature.outputs[name] for name in method.output_names(signature)}
    except ServingError:
        return False
    return all(
        info.dtype == types[name] and (info.shape is None or len(info.shape) == rank or info.shape[rank:] == (1,))
        for name, info in outputs.items()
    )


def _sample_example(signature: Signature) -> dict[str, Any]:
    required = {name: each for name, each in signature.features.items() if each.is_required}
    features = required or signature.features
    return {name: [_sample_value(name, each.dtype)] * each.num_values for name, each in sorted(features.items())}


def _serialized_example(signature: Signature) -> dict[str, str]:
    (example,) = decode_examples({"examples": [_sample_example(signature)]})
    return {"b64": base64.b64encode(example).decode()}


def _num_values(signature: Signature) -> int:
    tensors = sum(math.prod(_sample_shape(info)) for info in signature.inputs.values())
    return tensors + sum(feature.num_values for feature in signature.features.values())


def _sample_shape(info: TensorInfo) -> list[int]:
    shape = (None,) if info.shape is None else info.shape
    free = [1, _IMAGE_SIZE, _IMAGE_SIZE, 3] if len(shape) == _IMAGE_RANK else [1] * len(shape)
    return [free[axis] if size is None else size for axis, size in enumerate(shape)]


def _sample_tensor(name: str, info: TensorInfo) -> Any:
    values = np.empty(_sample_shape(info), object)
    values.fill(_sample_value(name, info.dtype))
    return values.tolist()


def _sample_value(name: str, dtype: str) -> Any:
    if dtype == "string":
        return {"b64": _PNG} if any(word in name.lower() for word in _IMAGE_WORDS) else "text"
    if dtype == "bool":
        return True
    return 0.5 if NUMPY_TYPES[dtype].kind == "f" else 1
