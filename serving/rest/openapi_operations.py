"""The operations of an OpenAPI document: what a path takes, what it answers, and how it fails."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serving.rest.content import JSON
from serving.rest.openapi_schemas import Schema

_STATUSES = {  # of errors; what is behind each is in the text
    "GET": (400, 404, 429, 500, 501, 503),
    "POST": (400, 404, 408, 409, 413, 429, 431, 500, 501, 503, 504),
}
_VERSION = {"description": "The version that has answered.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}


def get(
    summary: str, schema: Schema, parameters: Sequence[Any] = (), more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A path that is read, with more answers than the one of this schema, if there are any."""
    responses = {"200": _content("The answer.", schema), **errors(_STATUSES["GET"]), **(more or {})}
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def post(summary: str, takes: Mapping[str, Any], gives: Mapping[str, Any], parameters: Sequence[Any]) -> dict[str, Any]:
    """A path that runs a model, with what it takes and gives by media type."""
    answered = {"description": "The answer.", "content": dict(gives), "headers": {"X-Model-Version": _VERSION}}
    return {
        "post": {
            "summary": summary,
            "parameters": list(parameters),
            "requestBody": {"required": True, "content": dict(takes)},
            "responses": {"200": answered, **errors(_STATUSES["POST"])},
        }
    }


def choice(signature_names: Iterable[str]) -> dict[str, Any]:
    """The parameter that names a signature."""
    text = "The signature. JSON, messages and forms name it themselves."
    schema = {"enum": ["", *sorted(signature_names)]}
    return {"name": "signature_name", "in": "query", "description": text, "schema": schema}


def errors(statuses: Iterable[int]) -> dict[str, Any]:
    """The answers of these statuses."""
    return {str(status): answer("Error") for status in statuses}


def answer(name: str) -> dict[str, Any]:
    """An answer in JSON, of a schema by its name."""
    return _content("Why there is no answer." if name == "Error" else "The answer.", reference(name))


def reference(name: str) -> Schema:
    """The schema of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _content(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema}}}
