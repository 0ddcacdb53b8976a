"""Calls that come while a gRPC server stops: refused in a way that clients understand."""

import time
from collections.abc import Callable
from typing import Any

import grpc

_REFUSED = "/tensorflow.serving."  # health is asked to the end
_QUIET = 0.1  # seconds without a call, after which nobody is likely to be sending one
_LONGEST = 1.0  # seconds to wait for that


class Refusal(grpc.ServerInterceptor):
    """Lets calls through until `begin`, and answers UNAVAILABLE from then on.

    A call that comes to a server that is being stopped gets CANCELLED of gRPC itself, which no client tries again
    elsewhere; and it may have been run.
    """

    def __init__(self) -> None:
        self._begun = False
        self._last = float("-inf")  # when a call came, by the monotonic clock

    def begin(self) -> None:
        """Refuses calls from now on, and returns once the open connections know, or have had the time to hear it."""
        self._begun = True
        end = time.monotonic() + _LONGEST
        while time.monotonic() < min(end, self._last + _QUIET):
            time.sleep(_QUIET / 10)

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """What answers a call. gRPC asks in the thread that reads, so what waits for a thread was let through."""
        self._last = time.monotonic()
        if self._begun and details.method.startswith(_REFUSED):
            return grpc.stream_unary_rpc_method_handler(_refuse)  # as if it streamed: its message is not waited for
        return continuation(details)


def _refuse(messages: Any, context: grpc.ServicerContext) -> Any:
    return context.abort(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")
