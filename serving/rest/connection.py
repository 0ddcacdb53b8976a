"""One HTTP/1.1 connection: uvicorn's, with a limit for all that a client may send or wait with."""

import asyncio
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import httptools
from uvicorn import Config
from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPScope, Scope
from uvicorn._types import ASGIReceiveCallable as Receive
from uvicorn._types import ASGISendCallable as Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serving.errors import invalid_argument
from serving.wire.json_text import error_body

Headers = list[tuple[bytes, bytes]]
Refused = Callable[[HTTPScope, int, str, int], Headers]
"""Takes the scope of a request that the server refuses itself, with the parts that have come, the status, the reason
and the body size of the refusal. Returns headers to send with it."""

_HEADER_OVERHEAD = 32  # bytes that each header counts for besides its own, as in HTTP/2 (RFC 9113, section 6.5.2)
_CHUNK_OVERHEAD = 16  # bytes besides each byte of a body in chunks
_PIECE_SIZE = 64 * 1024  # bytes of an answer that are written at a time
_UPGRADE = re.compile(rb"\nupgrade:", re.IGNORECASE)

STATUS_LINE[499] = b"HTTP/1.1 499 Client Closed Request\r\n"  # nginx's, and TensorFlow Serving's for CANCELLED


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits for clients, in bytes and seconds."""

    head_size: int = 64 * 1024
    """Of the request line and the headers, where each header counts for 32 bytes more."""
    head_time: float = 30
    """For the request line with all headers, and for the client to take a part of its answer."""
    handshake_time: float = 30
    body_rate: float = 1024
    """Bytes per second that a body must bring on average; it may stop for `head_time` besides."""
    idle_time: float = 75
    """Between requests."""
    last_idle_time: float = 0.5
    """Between requests while the server stops."""
    all_bodies_size: int = 2 * 1024 * 1024 * 1024
    """Of the bodies of all requests that are not answered."""
    connections: int = 0
    """Open at a time; 0 stands for any number, here and below."""
    connections_per_address: int = 0
    linger_time: float = 2
    """For a client to read why it was refused, while it may still be sending."""
    discarded_size: int = 64 * 1024
    """Of a body that the application did not read; after a larger one the connection ends."""


@dataclass(kw_only=True)
class Shared:
    """The state that all connections of a server share."""

    limits: Limits
    refused: Refused
    stopping: bool = False
    bodies: dict[RequestResponseCycle, int] = field(default_factory=dict)
    """The sizes of the bodies of requests that are not answered."""
    bodies_size: int = 0

    def hold(self, cycle: RequestResponseCycle, size: int) -> None:
        """Counts bytes of a body. Refuses the largest incomplete one, maybe this one, where all are too large."""
        self.bodies[cycle] = self.bodies.get(cycle, 0) + size
        self.bodies_size += size
        while self.bodies_size > self.limits.all_bodies_size and cycle in self.bodies:
            largest = max((each for each in self.bodies if each.more_body), key=self.bodies.__getitem__)
            self.release(largest)
            cast(Connection, largest.transport).refuse(503, "The server holds too many bodies. Try again later.")

    def release(self, cycle: RequestResponseCycle) -> None:
        """Forgets a body."""
        self.bodies_size -= self.bodies.pop(cycle, 0)


class Connection(HttpToolsProtocol):
    """Gets calls from the event loop for bytes, from httptools for parsed parts, and from the server at intervals."""

    def __init__(self, config: Config, state: ServerState, shared: Shared, address: str) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.address = address
        self._shared = shared
        self._unread = b""
        self._position = 0  # of the first byte that is not parsed
        self._in_message = False
        self._body_size = self._chunked_size = 0
        self._body_rest: int | None = 0  # None where the body comes in chunks
        self._since = time.monotonic()  # since when the client is waited for
        self._abort_time = math.inf
        self._head: bytes | None = b""  # of an answer, which waits for its body; None before it is written
        self._is_lingering = False  # nothing more is read; the client may still be sending

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """The client has connected, and the handshake is over."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(_PIECE_SIZE)
        self.is_closing = transport.is_closing
        self._since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or this side has ended the connection."""
        self._unread = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come in."""
        if not self._is_lingering:
            if not self._unread and not self._in_message:
                self._since = time.monotonic()
            self._unread, self._position = self._unread[self._position :] + data, 0
            self._read_on()

    def _read_on(self) -> None:
        """Parses one request once the one before is answered: as objects, many take far more memory than as bytes."""
        while self._position < len(self._unread) and not self._is_lingering:
            if self._is_answering():
                self.flow.pause_reading()
                return
            start = self._position
            if self._in_message:
                end = len(self._unread) if self._body_rest is None else start + max(1, self._body_rest)
                part = self._unread[start:end]
            else:
                end = self._find_head()
                if not end:
                    return
                part = _UPGRADE.sub(b"\nx-upgrade:", self._unread[start:end])  # and so is never granted
            self._position = min(end, len(self._unread))
            self._parse(part)
        self._unread, self._position = b"", 0

    def _is_answering(self) -> bool:
        cycle = self.cycle
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def _find_head(self) -> int:
        """Where the next head ends; 0 where it has not ended, or is refused."""
        start, end = self._position, self._unread.find(b"\r\n\r\n", self._position) + 4
        size = (end if end > 3 else len(self._unread)) - start
        num_lines = self._unread.count(b"\n", start, start + size)
        if size + num_lines * _HEADER_OVERHEAD > self._shared.limits.head_size:
            self.refuse(431, "The headers are too large.")
            return 0
        if end == 3 and not self._unread[start : start + 1].isupper():
            return start + 1  # it begins no method, but perhaps TLS or a blank line
        return end if end > 3 else 0

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.refuse(400, "Malformed HTTP request: this is no proxy")
        except httptools.HttpParserError as error:
            if self._is_answering():  # another request comes with the end of a body in chunks
                self.cycle.keep_alive = False
            elif not self._is_lingering:
                self.refuse(400, f"Malformed HTTP request: {error}")
        if self._in_message and self._body_rest is None:
            self._chunked_size += len(data)
            if self._chunked_size - self._body_size * _CHUNK_OVERHEAD > self._shared.limits.head_size:
                self.refuse(431, "The headers are too large.")

    def on_message_begin(self) -> None:
        """The first byte of a request has been parsed."""
        if self._is_answering():
            raise httptools.HttpParserError
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """All headers have been parsed."""
        if self.parser.should_upgrade():  # CONNECT
            return
        self._in_message = True
        headers = dict(self.headers)
        self._body_rest = None if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0))
        self.url = _without_host(self.url)
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, self)  # for `write`, `close` and `is_closing`
        self.headers = []  # trailers go here

    def on_body(self, body: bytes) -> None:
        """A part of the body has been parsed."""
        self._body_size += len(body)
        if self._body_rest is not None:
            self._body_rest -= len(body)
        if not self.cycle.response_complete and not self.cycle.disconnected:
            super().on_body(body)
            self._shared.hold(self.cycle, len(body))

    def on_message_complete(self) -> None:
        """The end of a request has been parsed."""
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self._in_message = self.cycle.more_body = False
            self._body_size = self._chunked_size = 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, partial(self._answer, cycle, app))

    async def _answer(
        self, cycle: RequestResponseCycle, app: ASGI3Application, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            await app(scope, receive, partial(self._send, cycle, send))
        finally:
            self._shared.release(cycle)

    async def _send(self, cycle: RequestResponseCycle, send: Send, message: ASGISendEvent) -> None:
        """Sends a large body in pieces, so that it shows whether the client takes them."""
        if message["type"] == "http.response.start":
            cycle.keep_alive = cycle.keep_alive and self._can_go_on(cycle)
            self._head = None
        elif message["type"] == "http.response.body":
            body = memoryview(message.get("body", b""))
            while len(body) > _PIECE_SIZE:
                await send({**message, "body": cast(bytes, body[:_PIECE_SIZE]), "more_body": True})
                body = body[_PIECE_SIZE:]
            message["body"] = cast(bytes, body)
        await send(message)

    def _can_go_on(self, cycle: RequestResponseCycle) -> bool:
        """Whether another request can follow the answer that is about to be sent.

        A client that waits for permission to send its body may send something else, which would be read as the body.
        """
        is_long = self._body_rest is None or self._body_rest > self._shared.limits.discarded_size
        return not self._shared.stopping and not (cycle.more_body and (is_long or cycle.waiting_for_100_continue))

    def write(self, data: bytes) -> None:
        """Sends a part of an answer, the first part of a body together with the head."""
        if self._head is None:
            self._head = data
        else:
            self.transport.write(self._head + data)
            self._head = b""

    def on_response_complete(self) -> None:
        """An answer has been written."""
        if self._head:  # there is no body, as for HEAD
            self.write(b"")
        self._since = time.monotonic()
        if self.transport.is_closing() or self._is_lingering:
            return
        self.flow.resume_reading()
        self._read_on()

    def pause_writing(self) -> None:
        """The client does not read, and the buffers are full."""
        super().pause_writing()
        self._abort_time = time.monotonic() + self._shared.limits.head_time

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._abort_time = math.inf

    def close(self) -> None:
        """Ends the connection after an answer, which the client has a time to read."""
        if self._head:
            self.write(b"")
        if self._in_message:
            self._linger()
        else:
            self._abort_time = time.monotonic() + self._shared.limits.head_time
            self.transport.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        if self.transport is not None:  # it is None until the handshake of TLS is over
            self.transport.abort()

    def _linger(self) -> None:
        # To close while the client still sends would reset the connection, and the answer would be lost.
        self._is_lingering = True
        self._abort_time = time.monotonic() + self._shared.limits.linger_time
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def refuse(self, status: int, reason: str) -> None:
        """Answers instead of the application, and reads nothing more from this client."""
        cycle, is_closing = self.cycle, self.is_closing()
        if self._in_message:
            cycle.disconnected = True
            cycle.message_event.set()
            self._shared.release(cycle)
            is_closing |= cycle.response_started
        if is_closing:
            self.transport.close()
        else:
            self.write(refusal(self.server_state, self._shared, self._known_scope(), status, reason))
            self._linger()

    def _known_scope(self) -> HTTPScope:
        if self._in_message:
            return self.scope
        super().on_message_begin()
        with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):  # for the address and the first headers
            self.parser.feed_data(self._unread[self._position :].partition(b"\r\n\r\n")[0])
        method = self.parser.get_method().decode("ascii") if self.url else ""
        path = _without_host(self.url).partition(b"?")[0]
        self.scope |= {"method": method, "path": path.decode("latin-1"), "raw_path": path}
        return self.scope

    def check(self, now: float) -> None:
        """Ends the connection where its client takes too long."""
        limits, waited = self._shared.limits, now - self._since
        if now > self._abort_time:
            self.transport.abort()
        elif self.transport is None or self.is_closing() or self._is_lingering or self._is_answering():
            return
        elif self.flow.read_paused:  # the application takes its time
            self._since = now
        elif self._in_message or self._unread:
            if waited > limits.head_time + self._body_size / limits.body_rate:
                self.refuse(408, "The request took too long to arrive.")
        # One that has just been answered may be sending already, and should not find the connection closed.
        elif waited > (limits.last_idle_time if self._shared.stopping else limits.idle_time):
            self._abort_time = now + limits.linger_time  # TLS waits for the client to close, too
            self.transport.close()


def refusal(state: ServerState, shared: Shared, scope: HTTPScope, status: int, reason: str) -> bytes:
    """The answer to what the server refuses itself, after which the connection ends."""
    body = error_body(invalid_argument(reason))
    headers = [*state.default_headers, *shared.refused(scope, status, reason, len(body))]
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers)]
    return b"".join([*lines, b"\r\n", b"" if scope["method"] == "HEAD" else body])


def _without_host(url: bytes) -> bytes:
    """Path and query of an address, which is a whole one where a proxy is asked."""
    if not url or url.startswith(b"/"):
        return url
    with suppress(httptools.HttpParserInvalidURLError):
        parsed = httptools.parse_url(url)
        return (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
    return b"/"
