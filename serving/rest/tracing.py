"""Traces of the REST API, in the words of OpenTelemetry's semantic conventions for HTTP."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from serving.http.requests import Request
from serving.http.responses import Response
from serving.http.server import Application
from serving.rest.routes import parse_route
from serving.telemetry.endings import Ending

if TYPE_CHECKING:  # OpenTelemetry is imported where it is asked for alone
    from serving.telemetry.tracing import Tracing

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")


class TracedApplication:
    """An application whose requests leave spans."""

    def __init__(self, application: Application, tracing: Tracing, scheme: str) -> None:
        self.executor = application.executor
        self._application = application
        self._tracing = tracing
        self._scheme = scheme

    def answer(self, request: Request) -> Response:
        """The application's answer."""
        started = time.perf_counter()
        response = self._application.answer(request)
        headers = request.headers
        self._tracing.add(
            self._ending(request, response), lambda name: headers.get(name.encode(), b"").decode("latin-1"), started
        )
        return response

    def _ending(self, request: Request, response: Response) -> Ending:
        method = request.method if request.method in _METHODS else "_OTHER"
        route = _route(request, response)
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "url.scheme": self._scheme,
            "url.path": request.path,
            "client.address": request.client,
            "http.response.status_code": response.status,
        }
        name = f"{method.replace('_OTHER', 'HTTP')} {route}".rstrip()
        return Ending(
            name, attributes, str(response.status) if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR else ""
        )


def _route(request: Request, response: Response) -> str:
    """What is the same for requests of one kind; nothing for paths that clients make up."""
    route = parse_route(request.method, request.path)
    if route.is_api:
        return route.template
    return request.path if response.status != HTTPStatus.NOT_FOUND else ""
