"""The REST API as an OpenAPI 3.1 document, made from the signatures of the models that are loaded."""

import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from serving.admission.readiness import LIVE_PATH, READY_PATH
from serving.api.service import Service
from serving.call import Call
from serving.errors import ServingError
from serving.rest import openapi_media, openapi_schemas
from serving.rest.content import JSON
from serving.rest.openapi_operations import answer, choice, errors, get, post, reference
from serving.rest.routes import path_of
from serving.rest.sample_bodies import sample_body
from serving.wire.requests import ModelSpec
from serving.wire.signatures import Signature
from serving.wire.version_status import ModelStatus, State

OPENAPI_PATH = "/openapi.json"

_ABOUT = """TensorFlow Serving's REST API for the models that are loaded now.
NaN, Infinity and -Infinity are taken and given as bare words, which standard JSON does not have. A whole number for a
float must lie within +-16777215 (for a double within +-9007199254740991), or be written with a point or an exponent;
one for an integer without. Lists must be rectangular, and of a length that the model takes. Inputs and outputs of
types that JSON lacks (half, bfloat16, uint16, complex) have other bodies. Answers are JSON unless Accept names another
type; a message is answered by a message. A wrong verb is answered with 400, as there."""
_LARGEST_SAMPLE = 4096  # values, of which the document may have very many; /example has larger bodies
_STATUS = {
    "type": "object",
    "required": ["version", "state", "status"],
    "properties": {
        "version": {"type": "string", "pattern": "^[0-9]+$"},
        "state": {"enum": [state.name for state in State]},
        "status": {
            "type": "object",
            "required": ["error_code", "error_message"],
            "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
        },
    },
}
_STATUS_LIST = {"type": "array", "items": {"$ref": "#/components/schemas/VersionStatus"}}
_SCHEMAS = {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "VersionStatus": _STATUS,
    "ModelStatus": {
        "type": "object",
        "required": ["model_version_status"],
        "properties": {"model_version_status": _STATUS_LIST},
    },
    "Models": {
        "type": "object",
        "required": ["models"],
        "properties": {
            "models": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "version_labels", "model_version_status"],
                    "properties": {
                        "name": {"type": "string"},
                        "version_labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "model_version_status": _STATUS_LIST,
                    },
                },
            }
        },
    },
    "Metadata": {
        "type": "object",
        "required": ["model_spec", "metadata"],
        "properties": {"model_spec": {"type": "object"}, "metadata": {"type": "object"}},
    },
    "Alive": {"type": "object", "required": ["alive"], "properties": {"alive": {"const": True}}},
    "Readiness": {
        "type": "object",
        "required": ["ready", "phase"],
        "properties": {
            "ready": {"type": "boolean"},
            "phase": {"enum": ["loading", "serving", "leaving", "draining"]},
            "models_without_a_version": {"type": "array", "items": {"type": "string"}},
        },
    },
}


def describe_api(service: Service, needs_token: bool = False) -> dict[str, Any]:
    """The document for what is loaded now: every path of the server, with the schemas of its bodies.

    It says whether a bearer token is needed.
    """
    schemas: dict[str, Any] = dict(_SCHEMAS)
    paths = {
        LIVE_PATH: get("Whether the process answers.", reference("Alive")),
        READY_PATH: get("Whether to send requests here.", reference("Readiness"), more={"503": answer("Readiness")}),
        "/v1/models": get("The models, their labels and how their versions are.", reference("Models")),
    }
    for status in service.models():
        for version, specs in _addresses(status).items():
            try:
                with service.lease(ModelSpec(status.name, version), Call()) as model:
                    signatures = model.signatures
            except ServingError:  # it has gone meanwhile
                continue
            expressible = {name: each for name, each in signatures.items() if openapi_schemas.is_expressible(each)}
            names = _add_schemas(schemas, f"{status.name}.{version}", expressible)
            methods = _methods(names, signatures, expressible)
            for spec in specs:
                paths |= _model_paths(path_of(spec), methods, expressible)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Model server", "version": _version(), "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if needs_token:
        _guard(document)
    return document


def _guard(document: dict[str, Any]) -> None:
    """Says that all but the probes needs a token, and how a request without one is answered."""
    document["components"]["securitySchemes"] = {"bearerAuth": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"bearerAuth": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in (LIVE_PATH, READY_PATH):
                operation["security"] = []
            else:
                operation["responses"] |= errors((401, 403))


def _addresses(model: ModelStatus) -> dict[int, list[ModelSpec]]:
    """Every way to name a version that answers, by its number."""
    versions = [each.version for each in model.versions if each.state is State.AVAILABLE]
    specs = {version: [ModelSpec(model.name, version)] for version in versions}
    if versions:
        specs[max(versions)].append(ModelSpec(model.name))
    for label, version in model.labels.items():
        if version in specs:
            specs[version].append(ModelSpec(model.name, label=label))
    return specs


def _add_schemas(schemas: dict[str, Any], key: str, signatures: Mapping[str, Signature]) -> dict[str, tuple[str, str]]:
    """Adds what a version takes and gives. Returns the names of both by method."""
    made = {}
    if signatures:
        made["predict"] = openapi_schemas.predict_request(signatures), openapi_schemas.predict_response(signatures)
    responses = {"classify": openapi_schemas.classify_response(), "regress": openapi_schemas.regress_response()}
    for method, response in responses.items():
        if openapi_schemas.of_method(signatures, method):
            made[method] = openapi_schemas.examples_request(signatures, method), response
    names = {}
    for method, (takes, gives) in made.items():
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{key}.{method}")
        names[method] = f"{name}.takes", f"{name}.gives"
        schemas |= {f"{name}.takes": takes, f"{name}.gives": gives}
    return names


def _model_paths(path: str, methods: Mapping[str, Any], expressible: Mapping[str, Signature]) -> dict[str, Any]:
    return {
        path: get("How the versions are.", reference("ModelStatus")),
        f"{path}/metadata": get("The signatures.", reference("Metadata")),
        f"{path}/example": get("A body that a signature takes.", {"type": "object"}, [choice(expressible)]),
        **{f"{path}:{method}": operations for method, operations in methods.items()},
    }


def _methods(
    names: Mapping[str, tuple[str, str]], signatures: Mapping[str, Signature], expressible: Mapping[str, Signature]
) -> dict[str, Any]:
    """The operation of each method that a version has."""
    methods = {}
    for method in ("predict", "classify", "regress"):
        takes = openapi_media.requests(method, signatures)
        gives = openapi_media.answers(method, signatures)
        if method in names:
            name_in, name_out = names[method]
            samples = _samples(method, expressible)
            takes = {JSON: {"schema": reference(name_in), "examples": samples}, **takes}
            gives = {JSON: {"schema": reference(name_out)}, **gives}
        if takes:
            fitting = [each.name for each in openapi_schemas.of_method(signatures, method)]
            names_taken = signatures if method == "predict" else fitting  # which runs those of the others as well
            methods[method] = post(f"Runs a signature ({method}).", takes, gives, [choice(names_taken)])
    return methods


def _samples(method: str, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    samples = {}
    for signature in openapi_schemas.of_method(signatures, method):
        try:
            samples[signature.name] = {"value": sample_body(signature, _LARGEST_SAMPLE)}
        except ServingError:  # JSON has nothing for it, or it is large
            continue
    return samples


def _version() -> str:
    try:
        return metadata.version("keras_prelu")
    except metadata.PackageNotFoundError:
        return "unknown"
