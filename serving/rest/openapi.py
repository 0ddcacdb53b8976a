"""The REST API as an OpenAPI 3.1 document, made from the signatures of the models that are loaded."""

import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from serving.errors import ServingError
from serving.models.signatures import Signature
from serving.models.version_states import ModelStatus, State
from serving.readiness import LIVE_PATH, READY_PATH
from serving.request import ModelSpec
from serving.rest import openapi_schemas
from serving.rest.routes import path_of
from serving.rest.sample_bodies import sample_body
from serving.service import Service

OPENAPI_PATH = "/openapi.json"

_ABOUT = """TensorFlow Serving's REST API for the models that are loaded now.
NaN, Infinity and -Infinity are taken and given as bare words, which standard JSON does not have. A whole number for a
float must lie within +-16777215 (for a double within +-9007199254740991), or be written with a point or an exponent;
one for an integer without. Lists must be rectangular, and of a length that the model takes. Inputs and outputs of
types that JSON lacks (half, bfloat16, uint16, complex) are left out. A wrong verb is answered with 400, as there."""
_STATUSES = {  # of errors; what is behind each is in the text
    "GET": (400, 401, 403, 404, 429, 500, 501, 503),
    "POST": (400, 401, 403, 404, 408, 409, 413, 429, 431, 500, 501, 503, 504),
}
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


def describe_api(service: Service) -> dict[str, Any]:
    """The document for what is loaded now: every path of the server, with the schemas of its bodies."""
    schemas: dict[str, Any] = dict(_SCHEMAS)
    paths = {
        LIVE_PATH: _get("Whether the process answers.", _reference("Alive")),
        READY_PATH: _get("Whether to send requests here.", _reference("Readiness"), {"503": _answer("Readiness")}),
        "/v1/models": _get("The models, their labels and how their versions are.", _reference("Models")),
    }
    for status in service.models():
        for spec, version in _addresses(status):
            try:
                _, signatures = service.signatures(ModelSpec(spec.name, version))
            except ServingError:  # it has gone meanwhile
                continue
            signatures = {name: each for name, each in signatures.items() if openapi_schemas.is_expressible(each)}
            names = _add_schemas(schemas, f"{spec.name}.{version}", signatures)
            paths |= _model_paths(path_of(spec), names, signatures)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Model server", "version": _version(), "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _addresses(model: ModelStatus) -> Iterator[tuple[ModelSpec, int]]:
    """Every way to name a version that answers, with its number."""
    versions = [each.version for each in model.versions if each.state is State.AVAILABLE]
    if versions:
        yield ModelSpec(model.name), max(versions)
    yield from ((ModelSpec(model.name, version), version) for version in versions)
    yield from (
        (ModelSpec(model.name, label=label), version) for label, version in model.labels.items() if version in versions
    )


def _add_schemas(schemas: dict[str, Any], key: str, signatures: Mapping[str, Signature]) -> dict[str, tuple[str, str]]:
    """Adds what a version takes and gives. Returns the names of both by method."""
    made = {}
    if signatures:
        made["predict"] = openapi_schemas.predict_request(signatures), openapi_schemas.predict_response(signatures)
    answers = {"classify": openapi_schemas.classify_response(), "regress": openapi_schemas.regress_response()}
    for method, answer in answers.items():
        if openapi_schemas.of_method(signatures, method):
            made[method] = openapi_schemas.examples_request(signatures, method), answer
    names = {}
    for method, (takes, gives) in made.items():
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{key}.{method}")
        names[method] = f"{name}.takes", f"{name}.gives"
        schemas |= {f"{name}.takes": takes, f"{name}.gives": gives}
    return names


def _model_paths(
    path: str, names: Mapping[str, tuple[str, str]], signatures: Mapping[str, Signature]
) -> dict[str, Any]:
    choice = {"name": "signature_name", "in": "query", "schema": {"enum": ["", *sorted(signatures)]}}
    paths = {
        path: _get("How the versions are.", _reference("ModelStatus")),
        f"{path}/metadata": _get("The signatures.", _reference("Metadata")),
        f"{path}/example": _get("A body that a signature takes.", {"type": "object"}, parameters=[choice]),
    }
    for method, (takes, gives) in names.items():
        paths[f"{path}:{method}"] = _post(method, takes, gives, _samples(method, signatures))
    return paths


def _samples(method: str, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    samples = {}
    for signature in openapi_schemas.of_method(signatures, method):
        try:
            samples[signature.name] = {"value": sample_body(signature)}
        except ServingError:  # JSON has nothing for it
            continue
    return samples


def _get(
    summary: str, schema: Any, more: Mapping[str, Any] | None = None, parameters: list[Any] | None = None
) -> dict[str, Any]:
    responses = {"200": _content("The answer.", schema), **_errors("GET"), **(more or {})}
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": responses}}


def _post(method: str, takes: str, gives: str, samples: Mapping[str, Any]) -> dict[str, Any]:
    answer = _content("The answer.", _reference(gives))
    version = {"description": "The version that has answered.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
    answer["headers"] = {"X-Model-Version": version}
    body = {"application/json": {"schema": _reference(takes), "examples": dict(samples)}}
    return {
        "post": {
            "summary": f"Runs a signature ({method}).",
            "requestBody": {"required": True, "content": body},
            "responses": {"200": answer, **_errors("POST")},
        }
    }


def _errors(verb: str) -> dict[str, Any]:
    return {str(status): _answer("Error") for status in _STATUSES[verb]}


def _answer(name: str) -> dict[str, Any]:
    return _content("Why there is no answer." if name == "Error" else "The answer.", _reference(name))


def _content(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _version() -> str:
    try:
        return metadata.version("keras_prelu")
    except metadata.PackageNotFoundError:
        return "unknown"
