"""Pages of other origins (CORS): TensorFlow Serving's headers, which let a browser's script see an answer."""

from collections.abc import Callable

from serving.http.requests import Request
from serving.rest.description import OPENAPI_PATH
from serving.rest.routes import parse_route

_HEADERS = (
    b"Access-Control-Allow-Origin: *\r\n"
    b"Access-Control-Allow-Methods: POST, GET\r\n"
    b"Access-Control-Allow-Headers: Content-Type"
)


def cross_origin_headers(may_send_tokens: bool = False) -> Callable[[Request], bytes]:
    """What goes with every answer of the API, whoever gives it, and with those to what is no request."""
    lines = _HEADERS + (b", Authorization\r\n" if may_send_tokens else b"\r\n")

    def headers(request: Request) -> bytes:
        path = request.path
        return lines if parse_route("", path).is_api or path == OPENAPI_PATH or not path else b""

    return headers
