"""Traces of the REST API."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from serving.call import REST
from serving.http.requests import Request
from serving.http.responses import Response
from serving.http.server import Application
from serving.request_facts import facts
from serving.rest.routes import parse_route

if TYPE_CHECKING:  # OpenTelemetry is imported only if it is asked for
    from serving.telemetry.tracing import Tracing


class TracedApplication:
    """An application whose requests leave spans."""

    def __init__(self, application: Application, tracing: Tracing) -> None:
        self.executor = application.executor
        self._application = application
        self._tracing = tracing

    def answer(self, request: Request) -> Response:
        """The application's answer."""
        started = time.perf_counter()
        response = self._application.answer(request)
        call = facts.call(
            started,
            transport=REST,
            method=request.method,
            path=request.path,
            client=request.client,
            model=facts.model,
            header=lambda name: request.headers.get(name.encode(), b"").decode("latin-1"),
        )
        self._tracing.add(call, response.status, _route(request, response))
        facts.trace_id = call.trace_id
        return response


def _route(request: Request, response: Response) -> str:
    """The path with placeholders; empty for paths that clients invent."""
    route = parse_route(request.method, request.path)
    if route.is_api:
        return route.template
    return request.path if response.status != HTTPStatus.NOT_FOUND else ""
