"""What requests and answers may be besides JSON, as the media types of an OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.rest.content import BYTES, FORM, IMAGE, NPY, NPZ, PROTOBUF
from serving.rest.openapi_schemas import Schema, is_expressible, of_method, tensor
from serving.rest.uploads import IMAGE_FEATURE, SIGNATURE_FIELD
from serving.rest.uploads import _required_inputs as required_inputs
from serving.rest.uploads import _takes_bytes as takes_bytes
from serving.wire.signatures import Signature

Content = dict[str, Any]
"""A Media Type Object by media type."""

_BINARY: Content = {"schema": {"type": "string", "format": "binary"}}
_FILES: Schema = {"type": "array", "items": _BINARY["schema"], "minItems": 1}


def requests(method: str, signatures: Mapping[str, Signature]) -> Content:
    """What a method takes, of all signatures that it has."""
    return _predict_requests(_whole(signatures)) if method == "predict" else _examples_requests(method, signatures)


def answers(method: str, signatures: Mapping[str, Signature]) -> Content:
    """What a method answers where Accept asks for it: messages, and what predict gives as arrays, too."""
    if method != "predict":
        return {PROTOBUF: _BINARY} if of_method(signatures, method) else {}
    whole = _whole(signatures)
    content: Content = {NPZ: _BINARY, PROTOBUF: _BINARY} if whole else {}
    return content | ({NPY: _BINARY} if any(len(each.outputs) == 1 for each in whole) else {})


def _predict_requests(signatures: Sequence[Signature]) -> Content:
    """Messages, and images, forms and arrays where some signature is for them."""
    expressible = [each for each in signatures if is_expressible(each)]
    content: Content = {}
    if any(takes_bytes(each) for each in expressible):
        content |= {IMAGE: _BINARY, BYTES: _BINARY}
    if expressible:
        content[FORM] = {"schema": {"anyOf": [_form(each) for each in expressible]}}
    if any(len(required_inputs(each)) == 1 for each in signatures):
        content[NPY] = _BINARY
    return content | ({NPZ: _BINARY, PROTOBUF: _BINARY} if signatures else {})


def _examples_requests(method: str, signatures: Mapping[str, Signature]) -> Content:
    """Messages, and images where some signature parses them, or may."""
    listed = of_method(signatures, method)
    content: Content = {PROTOBUF: _BINARY} if listed else {}
    if any(IMAGE_FEATURE in each.features or not each.features for each in listed):
        form = {"type": "object", "additionalProperties": _FILES, "minProperties": 1}
        content |= {IMAGE: _BINARY, BYTES: _BINARY, FORM: {"schema": form}}
    return content


def _whole(signatures: Mapping[str, Signature]) -> list[Signature]:
    return [each for _, each in sorted(signatures.items()) if each.inputs and each.outputs]


def _form(signature: Signature) -> Schema:
    """A field for each input, sent once for each row; fields for strings are bytes, others a value in JSON."""
    fields: dict[str, Schema] = {}
    for name, info in sorted(signature.inputs.items()):
        row = _BINARY["schema"] if info.dtype == "string" else tensor(info, info.shape and info.shape[1:])
        fields[name] = row if info.shape == () else {"type": "array", "items": row, "minItems": 1}
    return {
        "type": "object",
        "properties": {**fields, SIGNATURE_FIELD: {"enum": [signature.name]}},
        "required": required_inputs(signature),
        "additionalProperties": False,
    }
