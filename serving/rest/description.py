"""Descriptions over REST: of the API, and of the models with their states, their signatures and sample bodies."""

import base64
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata, resources

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message

from serving.api.service import Service
from serving.call import Call
from serving.errors import Code, ServingError
from serving.models.inference import CLASSIFY_TYPES, INPUTS
from serving.rest.content import Response, version_header
from serving.rest.routes import Route, signature_name
from serving.wire import messages
from serving.wire.json_examples import decode_examples
from serving.wire.json_tensors import is_json_type
from serving.wire.json_text import write, write_indented
from serving.wire.requests import ModelSpec, ModelStatus, path_of
from serving.wire.signatures import DEFAULT_SIGNATURE, DTYPES, Signature, TensorInfo, find_signature

OPENAPI_PATH = "/openapi.json"
LARGEST_SAMPLE = 2**20
"""Values of a sample. An image of 512 by 512 pixels has fewer."""

_IMAGE_SHAPE = (1, 32, 32, 3)  # replaces the free axes of a tensor of rank 4
_IMAGE_WORDS = ("image", "_bytes", "jpeg", "jpg", "png", "photo", "picture")
# A PNG of 32x32 pixels.
_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAM0lEQVR42mM4oWGDHQXgQBU40ALsiGHUglELRi0YtWDUglELRi0Y"
    "tWDUglELRi0YKhYAAHrFoEyLh/uOAAAAAElFTkSuQmCC"
)

Value = bool | int | float | str | dict[str, str]


def describe_api(needs_token: bool) -> bytes:
    """The OpenAPI document, which is the same for all models. It asks for a bearer token where the server does."""
    document = json.loads(resources.files("serving.rest").joinpath("openapi.json").read_bytes())
    with suppress(metadata.PackageNotFoundError):
        document["info"]["version"] = metadata.version("keras_prelu")
    if needs_token:
        document["security"] = [{"bearerAuth": []}]
    return write(document)


def describe(service: Service, route: Route, call: Call) -> Response:
    """The answer to a GET of the API. Raises ServingError where the model or the signature does not exist."""
    if route.action == "models":
        return Response(200, write_indented({"models": [_listed(model) for model in service.repository.models()]}))
    if route.action == "status":
        return Response(200, write_indented(_fields(messages.encode_statuses(service.status(route.spec)))))
    return _metadata(service, route, call) if route.action == "metadata" else _example(service, route, call)


def _listed(model: ModelStatus) -> dict[str, object]:
    labels = {label: str(version) for label, version in sorted(model.labels.items())}
    return {"name": model.name, "version_labels": labels, **_fields(messages.encode_statuses(model.versions))}


def _metadata(service: Service, route: Route, call: Call) -> Response:
    with service.lease(route.spec, call) as model:
        version, signatures = model.version, model.signatures
    definitions = {name: _fields(each.definition) for name, each in signatures.items()}
    body = {
        "model_spec": {"name": route.spec.name, "version": str(version), "signature_name": ""},
        "metadata": {"signature_def": {"signature_def": definitions}},
    }
    return Response(200, write_indented(body), headers=version_header(version))


def _example(service: Service, route: Route, call: Call) -> Response:
    with service.lease(route.spec, call) as model:
        version, signatures = model.version, model.signatures
    signature = find_signature(signatures, signature_name(route.query) or _first(signatures))
    link = f'<{path_of(route.spec)}:{method_of(signature)}>; rel="related"'.encode()
    return Response(200, write_indented(sample_body(signature)), headers=(*version_header(version), (b"link", link)))


def sample_command(service: Service, root: str, needs_token: bool) -> str:
    """A command that asks the first model that has a sample body, at the address of a server; empty if none has."""
    curl = 'curl -H "Authorization: Bearer $TOKEN"' if needs_token else "curl"
    for model in service.repository.models():
        spec = ModelSpec(model.name)
        with suppress(ServingError):
            with service.lease(spec, Call()) as leased:
                signature = find_signature(leased.signatures, _first(leased.signatures))
            sample_body(signature)
            address = root + path_of(spec)
            return f"{curl} -s {address}/example | {curl} -d @- {address}:{method_of(signature)}"
    return ""


def _first(signatures: Mapping[str, Signature]) -> str:
    return DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else min(signatures, default="")


def _fields(message: Message) -> dict[str, object]:
    """A message as TensorFlow Serving prints it: with the names of the .proto file, and with defaults."""
    return json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )


def method_of(signature: Signature) -> str:
    """The method that a signature is made for. Exports of TF2 do not name it, but their inputs and outputs do."""
    outputs = signature.outputs
    if INPUTS not in signature.inputs or not _takes_examples(signature) or len(outputs) > 2:
        return "predict"
    classes = [(outputs[name], dtype) for name, dtype in CLASSIFY_TYPES.items() if name in outputs]
    if classes and all(_can_be(info, dtype, 2) for info, dtype in classes):
        return "classify"
    values = outputs.get("outputs") if len(outputs) == 1 else None
    if values and (_can_be(values, "float", 1) or (values.dtype == "float" and (values.shape or ())[1:] == (1,))):
        return "regress"
    return "predict"


def sample_body(signature: Signature) -> dict[str, object]:
    """A body for the method of the signature.

    Raises ServingError if JSON has no values for the dtype of an input or output, or there would be too many values.
    """
    _check(signature)
    body: dict[str, object] = {} if signature.name == DEFAULT_SIGNATURE else {"signature_name": signature.name}
    if method_of(signature) != "predict":
        return {**body, "examples": [_sample_example(signature)]}
    columns = {
        name: np.full(_shape(info), _value(name, info.dtype), object) for name, info in sorted(signature.inputs.items())
    }
    if signature.features and _takes_examples(signature):
        (example,) = decode_examples({"examples": [_sample_example(signature)]})
        columns = dict.fromkeys(columns, np.array([{"b64": base64.b64encode(example).decode()}]))
    if not _has_rows(signature, columns):
        return {**body, "inputs": {name: column.tolist() for name, column in columns.items()}}
    if len(columns) == 1:
        return {**body, "instances": next(iter(columns.values())).tolist()}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {**body, "instances": [dict(zip(columns, row, strict=True)) for row in rows]}


def _takes_examples(signature: Signature) -> bool:
    """Whether the one input of a signature can be serialized tf.Examples."""
    inputs = list(signature.inputs.values())
    return len(inputs) == 1 and _can_be(inputs[0], "string", 1)


def _can_be(info: TensorInfo, dtype: str, rank: int) -> bool:
    return info.dtype == dtype and (info.shape is None or len(info.shape) == rank)


def _has_rows(signature: Signature, columns: dict[str, np.ndarray]) -> bool:
    """Whether requests and answers can have one element per example."""
    lengths = {column.shape[:1] for column in columns.values()}
    return len(lengths) == 1 and () not in {*lengths, *(each.shape for each in signature.outputs.values())}


def _check(signature: Signature) -> None:
    for name, info in sorted((*signature.inputs.items(), *signature.outputs.items())):
        if not is_json_type(info.dtype):
            raise ServingError(Code.UNIMPLEMENTED, f"JSON cannot hold {name}, which is of type {info.dtype}")
    size = sum(math.prod(_shape(info)) for info in signature.inputs.values())
    size += sum(feature.num_values for feature in signature.features.values())
    if size > LARGEST_SAMPLE:
        text = f'A body for signature "{signature.name}" has {size} values, and an example at most {LARGEST_SAMPLE}'
        raise ServingError(Code.UNIMPLEMENTED, text)


def _sample_example(signature: Signature) -> dict[str, list[Value]]:
    required = {name: each for name, each in signature.features.items() if each.is_required}
    features = required or signature.features
    return {name: [_value(name, each.dtype)] * each.num_values for name, each in sorted(features.items())}


def _shape(info: TensorInfo) -> list[int]:
    shape = (None,) if info.shape is None else info.shape
    free = _IMAGE_SHAPE if len(shape) == len(_IMAGE_SHAPE) else [1] * len(shape)
    return [default if size is None else size for size, default in zip(shape, free, strict=True)]


def _value(name: str, dtype: str) -> Value:
    if dtype == "string":
        return {"b64": _PNG} if any(word in name.lower() for word in _IMAGE_WORDS) else "text"
    if dtype == "bool":
        return True
    return 0.5 if DTYPES[dtype].numpy.kind == "f" else 1
