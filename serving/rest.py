"""The REST API as an ASGI application."""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Executor
from typing import Any

import orjson

from serving import codec, examples
from serving.errors import Code, ServingError, invalid_argument
from serving.json_text import error_body, parse_object
from serving.request import ModelSpec
from serving.routes import is_api, parse_route
from serving.service import Service

logger = logging.getLogger("serving")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[int, bytes]

STATUSES = {  # ToHTTPStatusCode in http_server.cc
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INTERNAL: 500,
    Code.DATA_LOSS: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
LARGEST_INFLATED_BODY = 100 * 1024 * 1024

_NOT_FOUND_PAGE = (  # libevent's, for paths that no handler takes
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
)
_GZIP = 16 + zlib.MAX_WBITS


class RestApplication:
    """TensorFlow Serving's REST API over a service. The timeout of a run is in seconds."""

    def __init__(self, service: Service, executor: Executor, timeout: float | None) -> None:
        self._service = service
        self._executor = executor
        self._timeout = timeout

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Reads a request and answers it, as ASGI asks."""
        body = await _read_body(receive)
        if body is None:
            return  # the client went away
        path = scope["raw_path"].decode("latin-1")
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not is_api(path):
            await _send(send, 404, _NOT_FOUND_PAGE, b"text/html")
            return
        # Models run outside the event loop, which stays free to read and to answer.
        arguments = (scope["method"], path, headers, body)
        loop = asyncio.get_running_loop()
        status, text = await loop.run_in_executor(self._executor, self.answer, *arguments)
        await _send(send, status, text, b"application/json")

    def answer(self, method: str, path: str, headers: dict[bytes, str], body: bytes) -> Answer:
        """The status and the body that answer a request."""
        if method == "OPTIONS":
            return _answer_options(headers)
        try:
            return 200, self._route(method, path, _inflate(headers, body))
        except ServingError as error:
            return STATUSES[error.code], error_body(error)
        except Exception:
            logger.exception("%s %s failed", method, path)
            return 500, error_body(ServingError(Code.INTERNAL, "Internal error; the server's log has more."))

    def _route(self, method: str, path: str, body: bytes) -> bytes:
        route = parse_route(method, path)
        if route.action == "predict":
            return self._predict(route.spec, body)
        if route.action == "classify":
            return self._classify(route.spec, body)
        if route.action == "status":
            return self._status(route.spec)
        raise ServingError(Code.UNIMPLEMENTED, f"This server does not answer {route.action} requests.")

    def _predict(self, spec: ModelSpec, body: bytes) -> bytes:
        document = parse_object(body)
        codec.decode_signature_name(document)
        may_hold_booleans = b"true" in body or b"false" in body
        prediction = self._service.predict(
            spec,
            lambda signatures: codec.decode_predict(document, signatures, may_hold_booleans),
            self._timeout,
        )
        return codec.encode_predict(prediction.outputs, codec.decode_layout(document))

    def _classify(self, spec: ModelSpec, body: bytes) -> bytes:
        document = parse_object(body)
        named = ModelSpec(spec.name, spec.version, spec.label, codec.decode_signature_name(document))
        decoded = examples.decode_examples(document)
        return examples.encode_classify(self._service.classify(named, decoded, self._timeout))

    def _status(self, spec: ModelSpec) -> bytes:
        statuses = [
            {
                "version": str(each.version),  # protobuf's JSON writes an int64 as a string
                "state": each.state.name,
                "status": {"error_code": each.code.name, "error_message": each.message},
            }
            for each in self._service.status(spec)
        ]
        return orjson.dumps({"model_version_status": statuses}, option=orjson.OPT_INDENT_2)


async def _read_body(receive: Receive) -> bytes | None:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _send(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _answer_options(headers: dict[bytes, str]) -> Answer:
    origin = headers.get(b"origin", "")
    return (200 if "http://" in origin or "https://" in origin else 400), b""


def _inflate(headers: dict[bytes, str], body: bytes) -> bytes:
    if headers.get(b"content-encoding", "").strip().lower() != "gzip":
        return body
    inflated = b""
    while body:  # a gzip file may have several members
        member = zlib.decompressobj(_GZIP)
        try:
            inflated += member.decompress(body, LARGEST_INFLATED_BODY + 1 - len(inflated))
        except zlib.error as error:
            raise invalid_argument(f"Request body is not valid gzip: {error}") from error
        if len(inflated) > LARGEST_INFLATED_BODY:
            raise invalid_argument(f"Request body inflates to more than {LARGEST_INFLATED_BODY} bytes.")
        if not member.eof:
            raise invalid_argument("Request body is not valid gzip: it ends too early")
        body = member.unused_data
    return inflated
