"""Traces of the gRPC API: an interceptor."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from serving.call import GRPC
from serving.request_facts import facts
from serving.rpc.handlers import Behavior, wrapped
from serving.rpc.logging import address

if TYPE_CHECKING:  # OpenTelemetry is imported only if it is asked for
    from serving.telemetry.tracing import Tracing

_HEALTH = "/grpc.health.v1.Health/"


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
        return wrapped(handler, lambda behavior: self._traced(behavior, method, metadata))

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
                call = facts.call(
                    started,
                    transport=GRPC,
                    path=method,
                    client=address(context.peer()),
                    model=facts.model,
                    header=lambda name: metadata.get(name, ""),
                )
                self._tracing.add(call, code)
                facts.trace_id = call.trace_id

        return answer
