"""TensorFlow Serving's JSON <-> arrays for Predict: row form (instances) and column form (inputs)."""

import enum
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.errors import ServingError, invalid_argument
from serving.wire.binding import find_signature
from serving.wire.hints import knowing
from serving.wire.json_instances import decode_rows
from serving.wire.json_numbers import SMALLEST_BODY, Numbers, read_numbers
from serving.wire.json_tensors import decode_tensor, encode_tensor, is_base64, row_values
from serving.wire.json_text import parse_object, value_text, write
from serving.wire.requests import PredictRequest
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

_BYTES_SUFFIX = "_bytes"


class Layout(enum.Enum):
    """How a request lays out its tensors; the answer is laid out alike."""

    ROW = "instances"
    COLUMN = "inputs"


def parse_predict(body: bytes) -> dict[str, Any]:
    """The object that a request body holds, its large arrays of numbers still in the text."""
    document = read_numbers(body) if len(body) >= SMALLEST_BODY else None
    return parse_object(body) if document is None else document


def decode_signature_name(document: Mapping[str, Any]) -> str:
    """The signature that a request names, or nothing."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {value_text(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def _decode_layout(document: Mapping[str, Any]) -> Layout:
    """How a request lays out its tensors."""
    rows, columns = Layout.ROW.value, Layout.COLUMN.value
    if rows not in document:
        if columns not in document:
            raise invalid_argument(f"Missing '{columns}' or '{rows}' key")
        return Layout.COLUMN
    if columns in document:
        raise _format_error(
            document, f"Not formatted correctly expecting only one of '{columns}' or '{rows}' keys to exist "
        )
    if not isinstance(document[rows], list | Numbers):
        raise _format_error(document, f"Expecting '{rows}' to be an list/array")
    if document[rows] == []:
        raise _format_error(document, f"No values in '{rows}' array")
    return Layout.ROW


def decode_predict(
    document: Mapping[str, Any], name: str, signatures: Mapping[str, Signature]
) -> tuple[PredictRequest, Layout]:
    """The arrays of a request for the signature of this name, of the types that it declares, and their layout."""
    inputs = _input_infos(name, signatures)
    signature = signatures[name or DEFAULT_SIGNATURE]
    with knowing(signature):
        layout = _decode_layout(document)
        decode = decode_rows if layout is Layout.ROW else _decode_columns
        return PredictRequest(name, decode(document[layout.value], inputs)), layout


def encode_predict(outputs: Mapping[str, np.ndarray], layout: Layout) -> bytes:
    """The answer to a request of this layout."""
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    if layout is Layout.ROW:
        return b'{"predictions":' + _encode_rows(outputs) + b"}"
    return b'{"outputs":' + _encode_columns(outputs) + b"}"


def _input_infos(name: str, signatures: Mapping[str, Signature]) -> Mapping[str, TensorInfo]:
    inputs = find_signature(signatures, name).inputs
    if not inputs:
        raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    return inputs


def _decode_columns(value: Any, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    if isinstance(value, dict) and not is_base64(value):
        for name in sorted(inputs):
            if name not in value:
                raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        return {name: decode_tensor(value[name], inputs[name].dtype) for name in sorted(inputs)}
    if len(inputs) > 1:
        raise invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    (name,) = inputs
    return {name: decode_tensor(value, inputs[name].dtype)}


def _encode_columns(outputs: Mapping[str, np.ndarray]) -> bytes:
    texts = {name: _encode_output(name, outputs[name]) for name in sorted(outputs)}
    return next(iter(texts.values())) if len(texts) == 1 else _object_text(texts)


def _encode_rows(outputs: Mapping[str, np.ndarray]) -> bytes:
    _check_batch(outputs)
    if len(outputs) == 1:
        return _encode_columns(outputs)
    names = sorted(outputs)
    values = [row_values(outputs[name], name.endswith(_BYTES_SUFFIX)) for name in names]
    finite = [column for column in values if column is not None]
    if len(finite) == len(names):
        return write([dict(zip(names, row, strict=True)) for row in zip(*finite, strict=True)])
    columns = [[_encode_output(name, row) for row in _rows(outputs[name])] for name in names]
    rows = [_object_text(dict(zip(names, texts, strict=True))) for texts in zip(*columns, strict=True)]
    return b"[" + b",".join(rows) + b"]"


def _check_batch(outputs: Mapping[str, np.ndarray]) -> None:
    batch_size = None
    for name in sorted(outputs):
        if outputs[name].ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        size = len(outputs[name])
        if batch_size not in (None, size):
            raise invalid_argument(f"Tensor name: {name} has inconsistent batch size: {size} expecting: {batch_size}")
        batch_size = size


def _rows(array: np.ndarray) -> list[np.ndarray]:
    # An index with an ellipsis keeps a scalar an array, of whatever type.
    return [array[position, ...] for position in range(len(array))]


def _encode_output(name: str, array: np.ndarray) -> bytes:
    return encode_tensor(array, as_base64=name.endswith(_BYTES_SUFFIX))


def _object_text(texts: Mapping[str, bytes]) -> bytes:
    return b"{" + b",".join(write(name) + b":" + text for name, text in texts.items()) + b"}"


def _format_error(document: Mapping[str, Any], complaint: str) -> ServingError:
    return invalid_argument(f"JSON Value: {value_text(document)} {complaint}")
