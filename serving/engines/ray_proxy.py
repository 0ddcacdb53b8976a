"""The part of the Ray engine in Ray's proxies: methods of gRPC as bytes, and another attempt where a replica has died.

Ray imports it by name in the process of each proxy, so that it imports no TensorFlow. A replica's answer to gRPC is a
byte, its status, and then the message, or the text of the error.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import grpc
import grpc.aio

from serving.errors import Code

METHODS = {
    "tensorflow.serving.PredictionService": ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"),
    "tensorflow.serving.ModelService": ("GetModelStatus", "HandleReloadConfigRequest"),
    "grpc.health.v1.Health": ("Check",),
}
TIME_KEY = "x-seconds-left"
"""The metadata with the seconds that the client still waits, for a replica."""

_ATTEMPTS = 3  # a request that kills its replica does not kill them all
_PAUSE = 0.2  # seconds, in which Ray learns of the death
_NO_ANSWER = "No replica has answered. Try again later."
_OF_RAY = ("application", "multiplexed_model_id", "session_id", TIME_KEY)  # what would change the way of a request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_Ask = Callable[[bytes, Any], Awaitable[bytes]]


def add_services(servicer: object, server: grpc.aio.Server) -> None:
    """Adds the services to the gRPC server of a proxy; Ray's `grpc_servicer_functions` names this function."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it complains of each call that a client gives up
    for service in METHODS:  # one at a time, as Ray takes only the first
        server.add_generic_rpc_handlers((_Service(service),))


def middlewares() -> list[Any]:
    """The middleware of a proxy's HTTP server; the variable RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names this."""
    from starlette.middleware import Middleware

    return [Middleware(RetryingApp)]


class _Service(grpc.ServiceRpcHandler):
    """The methods of a service. Ray's server replaces the handlers by those that ask a replica."""

    def __init__(self, name: str) -> None:
        self._name = name
        handler: Any = grpc.unary_unary_rpc_method_handler(_never)
        self._method_handlers = {f"/{name}/{method}": handler for method in METHODS[name]}

    def service_name(self) -> str:
        return self._name

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a method."""
        found = self._method_handlers.get(handler_call_details.method)
        return found and grpc.unary_unary_rpc_method_handler(_retrying(found.unary_unary))


def _never(message: bytes, context: object) -> bytes:
    raise NotImplementedError


def _retrying(ask: Any) -> Any:
    async def answer(message: bytes, context: _Context) -> bytes:
        return await _answer(ask, message, context)

    return answer


async def _answer(ask: _Ask, message: bytes, context: _Context) -> bytes:
    for attempt in range(_ATTEMPTS):
        answer = await ask(message, _Attempt(context))
        if answer:
            break
        _raise_if_cancelled()  # which Ray takes for an answer
        await asyncio.sleep(_PAUSE * attempt)
    else:
        await context.abort(grpc.StatusCode.UNAVAILABLE, _NO_ANSWER)
    if answer[0] != Code.OK:
        await context.abort(grpc.StatusCode[Code(answer[0]).name], answer[1:].decode())
    return answer[1:]


def _raise_if_cancelled() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class _Attempt:
    """The context of a call for one attempt, which Ray may fail without an end to the call."""

    def __init__(self, context: _Context) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        """The client's metadata, and the time that it waits yet."""
        metadata = [(key, value) for key, value in self._context.invocation_metadata() or () if key not in _OF_RAY]
        seconds = self._context.time_remaining()
        return metadata if seconds is None else [*metadata, (TIME_KEY, str(seconds))]

    def code(self) -> None:
        """No status: that is in the answer."""

    def details(self) -> str:
        """No text: that is in the answer."""
        return ""

    def set_code(self, code: object) -> None:
        """Passes over Ray's status."""

    def set_details(self, details: str) -> None:
        """Passes over Ray's text."""


class RetryingApp:
    """An ASGI application that asks another one again if that has not answered."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request."""
        received, answer = list[Message](), list[Message]()

        async def collect(message: Message) -> None:
            answer.append(message)

        for attempt in range(_ATTEMPTS):
            await self._app(dict(scope), _replaying(received, receive), collect)
            if _is_whole(answer):
                break
            answer.clear()
            _raise_if_cancelled()
            await asyncio.sleep(_PAUSE * attempt)
        for message in answer or _unavailable():
            await send(message)


def _is_whole(answer: list[Message]) -> bool:
    return bool(answer) and answer[-1]["type"] == "http.response.body" and not answer[-1].get("more_body", False)


def _replaying(received: list[Message], receive: Receive) -> Receive:
    """Receives first what has been received before, and keeps the rest."""
    replayed = iter(tuple(received))

    async def receive_again() -> Message:
        for message in replayed:
            return message
        received.append(await receive())
        return received[-1]

    return receive_again


def _unavailable() -> list[Message]:
    body = b'{"error": "%s"}' % _NO_ANSWER.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), (b"retry-after", b"1")]
    start: Message = {"type": "http.response.start", "status": 503, "headers": headers}
    return [start, {"type": "http.response.body", "body": body}]
