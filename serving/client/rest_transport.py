"""Carries calls over HTTP/1.1, on connections that are kept."""

from typing import Any

import httpx
import orjson

from serving.client.connection import Server, Tls
from serving.client.rest_wire import RestRequest, RestWire
from serving.client.wire import Wire
from serving.errors import Code, ServingError

_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=60)  # seconds
_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    412: Code.FAILED_PRECONDITION,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


class RestTransport:
    """A pool of connections."""

    def __init__(self, server: Server) -> None:
        self.wire: Wire = RestWire()
        self._client = httpx.Client(**_settings(server))

    def send(self, request: RestRequest, timeout: float | None) -> bytes:
        """The body of the reply. Raises ServingError where it is an error, or where there is none."""
        try:
            reply = self._client.request(**_arguments(request, timeout))
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _failure(error) from error
        return _body(reply)

    def close(self) -> None:
        """Ends its connections."""
        self._client.close()


class AsyncRestTransport:
    """The same on an event loop."""

    def __init__(self, server: Server) -> None:
        self.wire: Wire = RestWire()
        self._client = httpx.AsyncClient(**_settings(server))

    async def send(self, request: RestRequest, timeout: float | None) -> bytes:
        """The body of the reply. Raises ServingError where it is an error, or where there is none."""
        try:
            reply = await self._client.request(**_arguments(request, timeout))
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _failure(error) from error
        return _body(reply)

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.aclose()


def _settings(server: Server) -> dict[str, Any]:
    headers = {"accept-encoding": "identity"}
    if server.token is not None:
        headers["authorization"] = f"Bearer {server.token}"
    verify = (server.tls or Tls()).context() if server.url.startswith("https:") else True
    return {"base_url": server.url, "headers": headers, "verify": verify, "limits": _KEPT}


def _arguments(request: RestRequest, timeout: float | None) -> dict[str, Any]:
    arguments = {"method": "GET", "url": request.path, "timeout": timeout}
    if request.body is None:
        return arguments
    return {**arguments, "method": "POST", "content": request.body, "headers": {"content-type": "application/json"}}


def _body(reply: httpx.Response) -> bytes:
    if reply.status_code == 200:
        return reply.content
    raise ServingError(_CODES.get(reply.status_code, Code.UNKNOWN), _message(reply))


def _message(reply: httpx.Response) -> str:
    try:
        return str(orjson.loads(reply.content)["error"])
    except (ValueError, KeyError, TypeError):  # a proxy's page
        return f"HTTP {reply.status_code} {reply.reason_phrase}"


def _failure(error: Exception) -> ServingError:
    if isinstance(error, httpx.TimeoutException):
        return ServingError(Code.DEADLINE_EXCEEDED, "the server did not answer in time")
    is_broken = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ProxyError)
    return ServingError(Code.UNAVAILABLE if is_broken else Code.INTERNAL, str(error) or type(error).__name__)
