"""The access log of the gRPC API: an interceptor that writes down each call, and sends its name back in a trailer."""

import functools
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import grpc

from serving.call import GRPC
from serving.request_facts import facts
from serving.rpc.handlers import Behavior, wrapped
from serving.telemetry.access_log import REQUEST_ID_HEADER, AccessLog, request_id


class LoggedCalls(grpc.ServerInterceptor):
    """Writes calls down as they end, and those that stream as they begin."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The handler of a call, with a line in the log after it."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        given = [value for key, value in handler_call_details.invocation_metadata or () if key == REQUEST_ID_HEADER]
        name = request_id(given[0] if given else "")
        # The length of an answer is known where it is written, so that is done here.
        write = None if handler.response_streaming else handler.response_serializer
        if write is not None:
            handler = handler._replace(response_serializer=None)
        return wrapped(handler, lambda behavior: self._logged(behavior, handler_call_details.method, name, write))

    def _logged(self, behavior: Behavior, method: str, name: str, write: Callable[[Any], bytes] | None) -> Behavior:
        @functools.wraps(behavior)
        def answer(request: Any, context: grpc.ServicerContext, *others: Any) -> Any:
            started, size, code = time.perf_counter(), 0, grpc.StatusCode.OK
            context.set_trailing_metadata(((REQUEST_ID_HEADER, name),))
            try:
                response = behavior(request, context, *others)
                if write is not None:
                    response = write(response)
                    size = len(response)
                return response
            except BaseException:
                code = context.code() or grpc.StatusCode.UNKNOWN  # type: ignore[attr-defined]
                raise
            finally:
                call = facts.call(
                    started,
                    transport=GRPC,
                    method=method.rpartition("/")[2],
                    path=method,
                    client=address(context.peer()),
                    request_id=name,
                    model=facts.model or _model(request),
                )
                self._log.add(call, code.name, size)

        return answer


def _model(request: Any) -> str:
    return str(request.model_spec.name) if hasattr(request, "model_spec") else ""


def address(peer: str) -> str:
    """The client's address of what gRPC says: "ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711", "unix:"."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
