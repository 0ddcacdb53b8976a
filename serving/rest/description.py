"""Descriptions over REST: of the API, and of the models with their states, their signatures and sample bodies."""

import json
from contextlib import suppress
from importlib import metadata, resources

from google.protobuf import json_format
from google.protobuf.message import Message

from serving.api.service import Service
from serving.call import Call
from serving.rest.responses import Response, version_header
from serving.rest.routes import Route, path_of, signature_name
from serving.rest.sample_bodies import method_of, sample_body
from serving.wire import messages
from serving.wire.json_text import write, write_indented
from serving.wire.requests import ModelStatus
from serving.wire.signatures import DEFAULT_SIGNATURE, find_signature

OPENAPI_PATH = "/openapi.json"


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
        return Response(200, write_indented({"models": [_listed(model) for model in service.models()]}))
    if route.action == "status":
        return Response(200, write_indented(_fields(messages.encode_statuses(service.status(route.spec)))))
    return _metadata(service, route, call) if route.action == "metadata" else _example(service, route, call)


def _listed(model: ModelStatus) -> dict[str, object]:
    labels = {label: str(version) for label, version in sorted(model.labels.items())}
    return {"name": model.name, "version_labels": labels, **_fields(messages.encode_statuses(model.versions))}


def _metadata(service: Service, route: Route, call: Call) -> Response:
    with service.lease(route.spec, call) as model:
        version, definitions = model.version, model.metadata().definitions
    body = {
        "model_spec": {"name": route.spec.name, "version": str(version), "signature_name": ""},
        "metadata": {"signature_def": {"signature_def": {name: _fields(each) for name, each in definitions.items()}}},
    }
    return Response(200, write_indented(body), headers=version_header(version))


def _example(service: Service, route: Route, call: Call) -> Response:
    with service.lease(route.spec, call) as model:
        version, signatures = model.version, model.signatures
    first = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else min(signatures, default="")
    signature = find_signature(signatures, signature_name(route.query) or first)
    link = f'<{path_of(route.spec)}:{method_of(signature)}>; rel="related"'.encode()
    return Response(200, write_indented(sample_body(signature)), headers=(*version_header(version), (b"link", link)))


def _fields(message: Message) -> dict[str, object]:
    """A message as TensorFlow Serving prints it: with the names of the .proto file, and with defaults."""
    return json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
