"""The interceptor of the gRPC API: applies the policy to each call, waits for its message, has a thread answer it.

The event loop does the waiting, so a client that sends no message, or does not read its answer, holds no thread.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from serving.admission.policy import Policy
from serving.admission.threads import RequestThreads
from serving.admission.tokens import ANYBODY, Token
from serving.call import GRPC, Call
from serving.errors import Code, ServingError, truncate
from serving.rpc.health import SERVICES
from serving.telemetry.access_log import REQUEST_ID_HEADER
from serving.wire.signatures import helpful_text

logger = logging.getLogger("serving")

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, Message]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Answered: TypeAlias = "asyncio.Future[bytes | ServingError]"

STATUSES = {code: grpc.StatusCode[code.name] for code in Code}
_GONE = ServingError(Code.CANCELLED, "The client has gone.")
_MAX_BYTES = 2**31  # of all messages that are not answered
_MAX_WAITING = 4096  # calls that wait for their clients; each takes about 16 kB
_MAX_HEALTH_BYTES = 4096  # of a message to the health service, which anybody may send
_QUIET = 0.1  # seconds without a call, after which probably no client is sending one
_LONGEST_DRAIN = 1.0  # seconds to wait for that


# The token that a call needs: one for each model that its message names, one for administration, any, or none unless
# its message names a model.
_Access = enum.Enum("_Access", "MODELS ADMIN ANY HEALTH")
_ACCESS = {  # by the beginning of a method, the first that fits
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest": _Access.ADMIN,
    "/tensorflow.serving.": _Access.MODELS,
    "/grpc.health.v1.Health/": _Access.HEALTH,
    "/grpc.reflection.": _Access.ANY,
    "/": _Access.ADMIN,
}


@dataclass(frozen=True, slots=True)
class _Method:
    path: str
    name: str
    access: _Access
    behavior: Callable[..., Any]
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]


class Interceptor(grpc.aio.ServerInterceptor):
    """Answers each call according to the policy.

    A method of a servicer that is a plain function runs in one of the threads; its context is the Call. An asynchronous
    generator, as those of health and reflection, runs in the event loop.
    """

    def __init__(self, policy: Policy, threads: RequestThreads) -> None:
        self._policy = policy
        self._threads = threads
        self._num_bytes = 0  # of the messages that are not answered
        self._waiting = _WaitingCalls()
        self._handlers: dict[str, Handler] = {}
        self._is_draining = False
        self._last_call = float("-inf")  # by the monotonic clock

    async def drain(self) -> None:
        """Refuses calls from now on, and returns when the clients of open connections have probably noticed.

        Those that gRPC itself refuses while it stops end with CANCELLED, after which no client tries another server.
        """
        self._is_draining = True
        end = time.monotonic() + _LONGEST_DRAIN
        while time.monotonic() < min(end, self._last_call + _QUIET):
            await asyncio.sleep(_QUIET / 10)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler of a method. To gRPC all clients stream, so that a call can be refused unread."""
        self._last_call = time.monotonic()
        path = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is None:
            found = await continuation(handler_call_details)
            if found is not None:
                handler = self._handlers[path] = self._handler(path, found)
        return handler

    def _handler(self, path: str, found: Handler) -> Handler:
        behavior = found.unary_unary or found.unary_stream or found.stream_stream
        assert behavior is not None
        access = next(access for beginning, access in _ACCESS.items() if path.startswith(beginning))
        parse, serialize = found.request_deserializer or bytes, found.response_serializer or bytes
        method = _Method(path, path.rpartition("/")[2], access, behavior, parse, serialize)

        # gRPC asks at each call whether these are coroutines, which takes much longer if they are not plain functions.
        async def answer(messages: AsyncIterator[bytes], context: Context) -> bytes:
            return await self._answer(method, context)

        async def stream(messages: AsyncIterator[Any], context: Context) -> None:
            await self._stream(method, messages if found.request_streaming else None, context)

        if inspect.isasyncgenfunction(behavior):
            return grpc.stream_stream_rpc_method_handler(stream, parse if found.request_streaming else None, serialize)
        return grpc.stream_unary_rpc_method_handler(answer)

    async def _answer(self, method: _Method, context: Context) -> bytes:
        call = _call_of(method, context)
        try:
            token = self._admit(method, call, context)
            message = await self._receive(method, context)
            call.arrived, call.timeout = time.perf_counter(), context.time_remaining()
            self._policy.check_queue(self._threads.num_queued)
            if self._num_bytes and self._num_bytes + len(message) > _MAX_BYTES:
                raise ServingError(Code.RESOURCE_EXHAUSTED, "The server holds too many messages. Try again later.")
        except ServingError as error:
            self._policy.end(call, error.code, error.code.name, 0)
            return await _abort(context, error)
        self._num_bytes += len(message)
        answered = asyncio.get_running_loop().create_future()
        self._threads.submit(self._run, method, call, token, message, answered)
        answer = await answered
        return answer if isinstance(answer, bytes) else await _abort(context, answer)

    def _admit(self, method: _Method, call: Call, context: Context) -> Token:
        """Checks a call by its head."""
        self._policy.name(call)
        if call.request_id:
            context.set_trailing_metadata(((REQUEST_ID_HEADER, call.request_id),))
        if method.access is _Access.HEALTH:
            return ANYBODY
        if self._is_draining:
            raise ServingError(Code.UNAVAILABLE, "The server is shutting down.")
        token = self._policy.authenticate(call)
        if method.access is _Access.ADMIN:
            token.check_admin()
        return token

    async def _receive(self, method: _Method, context: Context) -> bytes:
        with self._waiting:
            message = await context.read()
        if not isinstance(message, bytes):  # but EOF
            raise ServingError(Code.UNIMPLEMENTED, f'"{method.path}" requires exactly one request message.')
        return message

    def _run(self, method: _Method, call: Call, token: Token, message: bytes, answered: _Answered) -> None:
        """Answers a call in this thread, unless its client has gone."""
        answer: bytes | ServingError = _GONE
        try:
            if not call.is_cancelled():
                answer = self._run_method(method, call, token, message)
        finally:
            answered.get_loop().call_soon_threadsafe(self._finish, len(message), answered, answer)

    def _run_method(self, method: _Method, call: Call, token: Token, message: bytes) -> bytes | ServingError:
        answer: bytes | ServingError
        try:
            self._policy.begin(call)
            answer = method.serialize(method.behavior(self._parse(method, call, token, message), call))
        except ServingError as error:
            answer = error
        except Exception:
            logger.exception("%s failed", method.name)
            answer = ServingError(Code.INTERNAL, "Internal error; the server's log has more.")
        code, size = (Code.OK, len(answer)) if isinstance(answer, bytes) else (answer.code, 0)
        self._policy.end(call, code, code.name, size)
        return answer

    def _finish(self, num_bytes: int, answered: _Answered, answer: bytes | ServingError) -> None:
        self._num_bytes -= num_bytes
        if not answered.cancelled():
            answered.set_result(answer)

    def _parse(self, method: _Method, call: Call, token: Token, message: bytes) -> Any:
        """Returns the request in a message. Raises PERMISSION_DENIED if the token is not for its models."""
        try:
            request = method.parse(message)
        except DecodeError as error:
            raise ServingError(Code.INTERNAL, "Exception deserializing request!") from error  # gRPC's own words
        if method.access is _Access.MODELS and token is not ANYBODY:
            for part in request.tasks if hasattr(request, "tasks") else [request]:
                token.check_model(part.model_spec.name)
        elif method.access is _Access.HEALTH and request.service not in SERVICES:
            self._policy.authenticate(call).check_model(request.service)
        return request

    async def _stream(self, method: _Method, messages: AsyncIterator[Any] | None, context: Context) -> None:
        call, code = _call_of(method, context), Code.UNKNOWN
        try:
            token = self._admit(method, call, context)
            if messages is not None:
                with self._waiting:
                    await _write_all(method.behavior(messages, context), context)
            else:
                message = await self._receive(method, context)
                if len(message) > _MAX_HEALTH_BYTES:
                    raise ServingError(Code.RESOURCE_EXHAUSTED, f"The message has more than {_MAX_HEALTH_BYTES} bytes.")
                await _write_all(method.behavior(self._parse(method, call, token, message), context), context)
            code = Code.OK
        except ServingError as error:
            code = error.code
            await _abort(context, error)
        except asyncio.CancelledError:
            code = Code.CANCELLED
            raise
        finally:
            self._policy.end(call, code, code.name, 0)


class _WaitingCalls:
    """Counts the calls within its context, which wait for their clients. Refuses the oldest if there are too many."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}  # the oldest first

    def __enter__(self) -> None:
        if len(self._tasks) >= _MAX_WAITING:
            oldest = next(iter(self._tasks))
            del self._tasks[oldest]
            oldest.cancel()
        self._tasks[_current_task()] = None

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        task = _current_task()
        is_refused = task not in self._tasks
        self._tasks.pop(task, None)
        if is_refused and kind is asyncio.CancelledError:
            task.uncancel()
            raise ServingError(Code.RESOURCE_EXHAUSTED, "Too many calls wait for their clients.") from None


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _call_of(method: _Method, context: Context) -> Call:
    return Call(
        transport=GRPC,
        method=method.name,
        path=method.path,
        client=_address(context.peer()),
        header=functools.partial(_value, context.invocation_metadata()),
        is_cancelled=_current_task().done,
    )


def _value(metadata: grpc.aio.Metadata | None, name: str) -> str:
    """The value of a key; empty if there is none, or more than one."""
    values = [value for key, value in metadata or () if key == name]
    return str(values[0]) if len(values) == 1 else ""


def _address(peer: str) -> str:
    """The client's address in gRPC's words: "ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711", "unix:"."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


async def _write_all(responses: AsyncIterator[Message], context: Context) -> None:
    async for response in responses:
        await context.write(response)


async def _abort(context: Context, error: ServingError) -> NoReturn:
    await context.abort(STATUSES[error.code], truncate(helpful_text(error)))
