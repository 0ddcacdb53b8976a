"""Bytes, forms and arrays that name no tensor's type -> the inputs of a signature."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2

from serving.errors import invalid_argument
from serving.rest.multipart import Field
from serving.rest.signature_choice import (
    Signatures,
    describe_all,
    only_one,
    required_inputs,
    signature_of_bytes,
)
from serving.wire.binding import find_signature
from serving.wire.hints import inputs_text
from serving.wire.json_predict import Layout
from serving.wire.json_tensors import decode_tensor
from serving.wire.requests import PredictRequest
from serving.wire.signatures import Signature, TensorInfo

IMAGE_FEATURE = "image/encoded"
"""The feature of a tf.Example that holds an encoded image, in the export contract and in TensorFlow's own models."""

SIGNATURE_FIELD = "signature_name"
"""The field of a form that names the signature."""


def bind_array(array: np.ndarray, signatures: Signatures, name: str) -> PredictRequest:
    """A request of one array, which needs a signature with one input."""
    signature = find_signature(signatures, name)
    required = required_inputs(signature)
    if len(required) != 1:
        raise invalid_argument(f"One array will not do; a .npz file names several. {inputs_text(signature)}")
    return PredictRequest(name, {required[0]: array})


def bind_bytes(values: Sequence[bytes], signatures: Signatures, name: str) -> tuple[PredictRequest, Layout]:
    """A request of bytes, such as encoded images, one value a row."""
    signature = find_signature(signatures, name) if name else signature_of_bytes(signatures)
    required = required_inputs(signature)
    if len(required) != 1 or signature.inputs[required[0]].dtype != "string":
        raise invalid_argument(f"Images and other bytes need one input of strings. {inputs_text(signature)}")
    array = _shaped(values, signature.inputs[required[0]])
    return PredictRequest(signature.name, {required[0]: array}), _layout([array])


def bind_form(fields: Sequence[Field], signatures: Signatures, name: str) -> tuple[PredictRequest, Layout]:
    """A request of a form: each field is an input, and has as many rows as it comes times.

    Strings are bytes, whatever else is a value in JSON. A single field whose name is no input's is for the signature
    that takes bytes.
    """
    named, fields = split_form(fields)
    name = name or named
    columns: dict[str, list[Field]] = {}
    for field in fields:
        columns.setdefault(field.name, []).append(field)
    signature = _signature_of(columns, signatures, name)
    if signature is None:
        return bind_bytes([field.content for field in fields], signatures, name)
    inputs = {alias: _column(alias, listed, signature) for alias, listed in columns.items()}
    return PredictRequest(signature.name, inputs), _layout(inputs.values())


def split_form(fields: Sequence[Field]) -> tuple[str, list[Field]]:
    """The signature that a form names, or nothing, and its other fields. Raises ServingError where there are none."""
    named: list[Field] = []
    others: list[Field] = []
    for field in fields:
        (named if field.name == SIGNATURE_FIELD and not field.is_file else others).append(field)
    if not others:
        raise invalid_argument("Expected a field for each input in multipart/form-data, but there is none.")
    return (named[0].content.decode("utf-8", "replace") if named else ""), others


def image_examples(images: Iterable[bytes]) -> np.ndarray:
    """Serialized tf.Examples of encoded images."""
    serialized = []
    for image in images:
        example = example_pb2.Example()
        example.features.feature[IMAGE_FEATURE].bytes_list.value.append(image)
        serialized.append(example.SerializeToString())
    return _strings(serialized)


def _signature_of(columns: Mapping[str, list[Field]], signatures: Signatures, name: str) -> Signature | None:
    fitting = [each for each, signature in signatures.items() if _fits(columns, signature)]
    if name:
        found: Signature | None = find_signature(signatures, name)
    else:
        found = signatures[only_one(fitting, signatures, "these fields")] if fitting else None
    if found is None and len(columns) > 1:
        raise invalid_argument(f"No signature is for the fields {', '.join(columns)}. {describe_all(signatures)}")
    if found is None or (len(columns) == 1 and not columns.keys() & found.inputs.keys()):
        return None
    return found


def _fits(columns: Mapping[str, list[Field]], signature: Signature) -> bool:
    """Whether the inputs have these names, strings where there are files, and rows where there are several."""
    if not set(required_inputs(signature)) <= columns.keys() <= signature.inputs.keys():
        return False
    for alias, fields in columns.items():
        info = signature.inputs[alias]
        if info.dtype != "string" and any(field.is_file for field in fields):
            return False
        if info.shape == () and len(fields) > 1:
            return False
    return True


def _column(alias: str, fields: Sequence[Field], signature: Signature) -> np.ndarray:
    if alias not in signature.inputs:
        raise invalid_argument(f"The field {alias} is no input. {inputs_text(signature)}")
    info = signature.inputs[alias]
    if info.dtype == "string":
        return _shaped([field.content for field in fields], info)
    values = [_json_value(field) for field in fields]
    return decode_tensor(values[0] if info.shape == () and len(values) == 1 else values, info.dtype)


def _json_value(field: Field) -> Any:
    try:
        text = field.content.decode()
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # fails at half of a surrogate pair, which no text holds
        return value
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"The field {field.name} is no value in JSON, such as 0.5 or [1, 2].") from error


def _shaped(values: Sequence[bytes], info: TensorInfo) -> np.ndarray:
    """The values as rows, or alone where the signature takes no more; each as a tensor of the rank it declares."""
    rank = 1 if info.shape is None else len(info.shape)
    if rank == 0 and len(values) == 1:
        return _strings(values).reshape(())
    return _strings(values).reshape(len(values), *[1] * (rank - 1))


def _strings(values: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _layout(arrays: Iterable[np.ndarray]) -> Layout:
    return Layout.ROW if all(array.ndim for array in arrays) else Layout.COLUMN
