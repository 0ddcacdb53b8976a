"""Traces of the gRPC API, in the words of OpenTelemetry's semantic conventions for RPC: an interceptor."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from serving.rpc.handlers import Behavior, wrapped
from serving.rpc.logging import address
from serving.telemetry.endings import Ending

if TYPE_CHECKING:  # OpenTelemetry is imported where it is asked for alone
    from serving.telemetry.tracing import Tracing

_HEALTH = "/grpc.health.v1.Health/"
_FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""Codes for which the server is at fault, by the conventions."""


class TracedCalls(grpc.ServerInterceptor):
    """Leaves spans of calls, but for probes of health and for streams."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The handler of a call, with a span after it."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None or handler.response_streaming or method.startswith(_HEALTH):
            return handler
        metadata = dict(handler_call_details.invocation_metadata or ())
        return wrapped(handler, lambda behavior: self._traced(behavior, method.lstrip("/"), metadata))

    def _traced(self, behavior: Behavior, method: str, metadata: dict[str, str]) -> Behavior:
        @functools.wraps(behavior)
        def answer(request: Any, context: grpc.ServicerContext, *others: Any) -> Any:
            started, code = time.perf_counter(), "OK"
            try:
                return behavior(request, context, *others)
            except BaseException:
                code = (context.code() or grpc.StatusCode.UNKNOWN).name  # type: ignore[attr-defined]
                raise
            finally:
                ending = _ending(method, code, address(context.peer()))
                self._tracing.add(ending, lambda name: metadata.get(name, ""), started)

        return answer


def _ending(method: str, code: str, client: str) -> Ending:
    attributes = {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "client.address": client,
        "rpc.response.status_code": code,
    }
    return Ending(method, attributes, code if code in _FAULTS else "")
