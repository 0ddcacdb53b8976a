"""Responses of the REST API, and the HTTP status for each error code."""

from typing import NamedTuple

from serving.errors import Code, ServingError
from serving.wire.json_text import error_body

STATUSES = {  # ToHTTPStatusCode in http_server.cc
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INTERNAL: 500,
    Code.DATA_LOSS: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}

Headers = tuple[tuple[bytes, bytes], ...]


class Response(NamedTuple):
    """A whole response. The names of its headers are in lower case, as ASGI wants them."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Headers = ()


def error_response(code: Code, message: str, headers: Headers = ()) -> Response:
    """The response to a request that failed."""
    return Response(STATUSES[code], error_body(ServingError(code, message)), headers=headers)


def version_header(version: int | None) -> Headers:
    """The header with the version that answered."""
    return () if version is None else ((b"x-model-version", b"%d" % version),)
