"""JSON Schemas of the bodies that signatures take and give, from the types and shapes of their tensors."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.rest.sample_bodies import can_be_rows, method_of
from serving.wire.json_tensors import is_json_type
from serving.wire.signatures import DEFAULT_SIGNATURE, NUMPY_TYPES, Signature, TensorInfo

Schema = dict[str, Any]

_BASE64_TEXT = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}={0,2}|[A-Za-z0-9+/]{3}=?)?$"
BASE64: Schema = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64", "pattern": _BASE64_TEXT}},
    "required": ["b64"],
    "additionalProperties": False,
}
_FEATURE: Schema = {"anyOf": [{"type": ["string", "number", "boolean"]}, BASE64]}
_BYTES_SUFFIX = "_bytes"


def is_expressible(signature: Signature) -> bool:
    """Whether JSON has values for all that a signature takes and gives."""
    tensors = (*signature.inputs.values(), *signature.outputs.values())
    return bool(signature.inputs and signature.outputs) and all(is_json_type(each.dtype) for each in tensors)


def predict_request(signatures: Mapping[str, Signature]) -> Schema:
    """What may be sent to predict."""
    return {"anyOf": [form for _, each in sorted(signatures.items()) for form in _requests(each)]}


def predict_response(signatures: Mapping[str, Signature]) -> Schema:
    """What comes back from predict."""
    return {"anyOf": [form for _, each in sorted(signatures.items()) for form in _responses(each)]}


def examples_request(signatures: Mapping[str, Signature], method: str) -> Schema:
    """What may be sent to classify or regress."""
    forms = [_named(each, "examples", _examples(each)) for each in of_method(signatures, method)]
    return {"anyOf": forms}


def classify_response() -> Schema:
    """For each example its labels, each with its score."""
    # Not as prefixItems, which clients made from the document often do not know.
    pair = {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 2, "maxItems": 2}
    return _object({"results": _array(_array(pair))})


def regress_response() -> Schema:
    """A number for each example."""
    return _object({"results": _array({"type": "number"})})


def of_method(signatures: Mapping[str, Signature], method: str) -> list[Signature]:
    """The signatures that are made for a method."""
    return [each for _, each in sorted(signatures.items()) if method_of(each) == method]


def tensor(info: TensorInfo, shape: tuple[int | None, ...] | None) -> Schema:
    """What a request may hold for an input, or for a row of it, of this shape."""
    return _nested(shape, _element(info, "", ""))


def _requests(signature: Signature) -> list[Schema]:
    columns = {name: _nested(info.shape, _element(info, name, "")) for name, info in sorted(signature.inputs.items())}
    named = _object(columns)
    only = list(columns.values())
    inputs = {"anyOf": [*only, named]} if len(only) == 1 else named
    forms = [_named(signature, "inputs", inputs) | {"not": {"required": ["instances"]}}]
    if can_be_rows(signature):
        # All rows are bare, or all are objects.
        rows = [_rows(signature.inputs, ""), _object(_named_rows(signature.inputs, ""))]
        lists = [_array(row, at_least=1) for row in rows]
        forms.append(_named(signature, "instances", {"anyOf": lists}) | {"not": {"required": ["inputs"]}})
    return forms


def _responses(signature: Signature) -> list[Schema]:
    suffix = _BYTES_SUFFIX
    columns = {name: _nested(info.shape, _element(info, name, suffix)) for name, info in signature.outputs.items()}
    outputs = next(iter(columns.values())) if len(columns) == 1 else _object(columns)
    forms = [_object({"outputs": outputs})]
    if can_be_rows(signature):
        forms.append(_object({"predictions": _array(_rows(signature.outputs, suffix))}))
    return forms


def _rows(tensors: Mapping[str, TensorInfo], suffix: str) -> Schema:
    """An element of the row form: bare where there is one tensor, an object where there are more."""
    rows = _named_rows(tensors, suffix)
    return _object(rows) if len(rows) > 1 else next(iter(rows.values()))


def _named_rows(tensors: Mapping[str, TensorInfo], suffix: str) -> dict[str, Schema]:
    return {
        name: _nested(info.shape and info.shape[1:], _element(info, name, suffix))
        for name, info in sorted(tensors.items())
    }


def _element(info: TensorInfo, name: str, suffix: str) -> Schema:
    if info.dtype == "string":
        if not suffix:
            return {"anyOf": [{"type": "string"}, BASE64]}
        return BASE64 if name.endswith(suffix) else {"type": "string"}
    if info.dtype == "bool":
        return {"type": "boolean"}
    dtype = NUMPY_TYPES[info.dtype]
    if dtype.kind == "f":
        return {"type": "number", "format": info.dtype}
    limits = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}


def _nested(shape: tuple[int | None, ...] | None, element: Schema) -> Schema:
    if shape is None:
        return {"anyOf": [element, {"type": "array"}]}
    schema = element
    for size in reversed(shape):
        schema = _array(schema) if size is None else {**_array(schema, size), "maxItems": size}
    return schema


def _examples(signature: Signature) -> Schema:
    feature = {"anyOf": [_FEATURE, {"type": "array", "items": _FEATURE}]}
    required = sorted(name for name, each in signature.features.items() if each.is_required)
    return _array({"type": "object", "additionalProperties": feature, "required": required}, at_least=1)


def _named(signature: Signature, key: str, schema: Schema) -> Schema:
    """A body with this key, which must name its signature unless that is the default one."""
    is_default = signature.name == DEFAULT_SIGNATURE
    name = {"enum": [signature.name, *([""] if is_default else [])]}
    return {
        "type": "object",
        "properties": {"signature_name": name, key: schema},
        "required": [key] if is_default else ["signature_name", key],
    }


def _array(items: Schema, at_least: int = 0) -> Schema:
    return {"type": "array", "items": items, **({"minItems": at_least} if at_least else {})}


def _object(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": sorted(properties)}
