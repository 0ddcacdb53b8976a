"""Receives the messages of gRPC calls, so that clients that send none hold up nobody.

gRPC's server waits for a message in a thread of its pool, for as long as the client likes. So the pool has more threads
than may run at a time: a call first waits for its message, and then for its turn.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from serving.admission.threads import RequestThreads, Turns
from serving.background import BackgroundThread
from serving.rpc.handlers import Behavior, wrapped

_MOST_WAITING = 256  # calls whose message has not come; the pool has as many threads for them
_PATIENCE = 0.25  # seconds that a call may wait where there are more
_MOST_BYTES = 2**31


class CallThreads(RequestThreads):
    """Threads for gRPC: those that run a call, those in which one waits for its turn, and those for its message."""

    def __init__(self, num_running: int, most_queued: int = 0) -> None:
        self.number = num_running + most_queued + _MOST_WAITING
        super().__init__(self.number, "grpc")
        self.turns = Turns(num_running)
        self.most_queued = most_queued
        """How many calls may wait for their turn; 0 stands for any number."""


class Receiving(grpc.ServerInterceptor):
    """Waits for the message of a call, which `most_bytes` limits together with all others that are not answered."""

    def __init__(self, threads: CallThreads, most_bytes: int = _MOST_BYTES) -> None:
        self._threads = threads
        self._open = _OpenCalls()
        self._held = _Held(most_bytes)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The handler of a call. To gRPC all clients stream, so that it leaves it to the handler to wait."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        if not handler.request_streaming:
            return self._receiving(handler, handler_call_details.method)
        return wrapped(handler, self._watched) if handler.response_streaming else handler

    def _receiving(self, handler: Any, method: str) -> Any:
        streams = handler.response_streaming
        behavior = handler.unary_stream if streams else handler.unary_unary
        parse = handler.request_deserializer or bytes

        @functools.wraps(behavior)
        def answer(messages: Iterator[bytes], context: grpc.ServicerContext, *others: Any) -> Any:
            with self._open.watch(context):
                message = next(messages, None)
            if message is None:
                return context.abort(grpc.StatusCode.UNIMPLEMENTED, f'"{method}" requires exactly one request message.')
            with self._held.hold(len(message), context):
                self._check_queue(context)
                with self._threads.turns.turn():
                    if not context.is_active():
                        return context.abort(grpc.StatusCode.CANCELLED, "The client has gone.")
                    return behavior(_parsed(message, parse, context), context, *others)

        if streams:
            return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _check_queue(self, context: grpc.ServicerContext) -> None:
        most = self._threads.most_queued
        if most and self._threads.turns.num_queued >= most:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{most} requests wait already. Try again later.")

    def _watched(self, behavior: Behavior) -> Behavior:
        """A stream in both directions, whose client may neither send nor read."""

        @functools.wraps(behavior)
        def answer(messages: Iterator[Any], context: grpc.ServicerContext, *others: Any) -> Iterator[Any]:
            with self._open.watch(context) as progress:
                for response in behavior(messages, context, *others):
                    yield response
                    progress()

        return answer


class _OpenCalls:
    """Calls that wait for their clients. Where they are too many, those that have waited longest are cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[grpc.ServicerContext, float] = {}  # in the order of the times, by the monotonic clock
        self._thins_out = False

    @contextmanager
    def watch(self, context: grpc.ServicerContext) -> Iterator[Callable[[], None]]:
        """Watches a call as long as the context is open; to be told by a call of its function where the client acts."""

        def progress() -> None:
            with self._lock:
                self._since.pop(context, None)
                self._since[context] = time.monotonic()

        progress()
        self._thin_out()
        try:
            yield progress
        finally:
            with self._lock:
                self._since.pop(context, None)

    def _thin_out(self) -> None:
        with self._lock:
            if self._thins_out or len(self._since) <= _MOST_WAITING:
                return
            self._thins_out = True
        self._thread = BackgroundThread(self._cancel_oldest, "grpc-watch")
        self._thread.start()

    def _cancel_oldest(self) -> None:
        while True:
            with self._lock:
                if len(self._since) <= _MOST_WAITING:
                    self._thins_out = False
                    return
                oldest, since = next(iter(self._since.items()))
                rest = since + _PATIENCE - time.monotonic()
                if rest <= 0:
                    del self._since[oldest]
            if rest > 0:
                time.sleep(rest)
            else:
                oldest.cancel()


class _Held:
    """The bytes of all messages that have come and are not answered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, size: int, context: grpc.ServicerContext) -> Iterator[None]:
        """Counts a message as long as the context is open; refuses it where it is one too many."""
        with self._lock:
            refused = self._size > 0 and self._size + size > self._most
            self._size += 0 if refused else size
        if refused:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "The server holds too many messages. Try again later.")
        try:
            yield
        finally:
            with self._lock:
                self._size -= size


def _parsed(message: bytes, parse: Callable[[bytes], Any], context: grpc.ServicerContext) -> Any:
    try:
        return parse(message)
    except Exception:
        return context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")  # gRPC's own words
