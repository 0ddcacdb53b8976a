"""One HTTP/1.1 connection: its requests are answered one after another, and it ends if its client is too slow."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol, cast

from serving.http.reader import RequestReader
from serving.http.reception import Reception
from serving.http.requests import Limits, Request
from serving.http.responses import Response


class Server(Protocol):
    """What a connection needs of its server."""

    limits: Limits
    reception: Reception
    stopping: bool
    date: bytes
    """The Date header, a whole line."""

    def admit(self, connection: "Connection") -> bool:
        """Takes a connection up, unless it is one too many."""

    def dismiss(self, connection: "Connection") -> None:
        """Forgets a connection that has ended."""

    def handle(self, request: Request, reply: Callable[[Response], None]) -> None:
        """Has a request answered; `reply` is called later, in the thread of this call."""


class Connection(asyncio.Protocol):
    """What asyncio calls as bytes come and go, and the server from time to time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader = RequestReader(server.limits, self._send_continue, self._answer_head)
        self._waiting: deque[Request] = deque()  # sent before the first was answered
        self._current: Request | None = None
        self._idle_since = time.monotonic()
        self._blocked_since: float | None = None  # the client does not take what it asked for
        self._lingers_since: float | None = None  # the client was refused, and may still be sending
        self._transport: asyncio.Transport
        self.address = ""
        """The client's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        if not self._server.admit(self):
            self._reader.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The server has too many connections.")
            self._refuse()
            self._lingers_since = self._idle_since  # whatever else comes is passed over
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, or this side has ended the connection."""
        self._server.dismiss(self)
        self._waiting.clear()
        if self._current is not None:
            self._current.cancelled = True

    def data_received(self, data: bytes) -> None:
        """Bytes have come in."""
        self._waiting += self._reader.feed(data)
        if self._current is None:
            self._go_on()
        if self._waiting:  # more than one at a time need not be in memory
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client does not read, and the buffers are full."""
        self._blocked_since = time.monotonic()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked_since = None

    def check(self, now: float) -> None:
        """Ends what takes too long."""
        limits = self._server.limits
        if self._blocked_since is not None and now - self._blocked_since > limits.head_time:
            self._transport.abort()
        elif self._lingers_since is not None:
            if now - self._lingers_since > limits.linger_time:
                self._transport.abort()
        elif self._current is None and self._reader.is_idle:
            # One that has just been answered may be sending already, and should not find the connection closed.
            allowed = limits.last_idle_time if self._server.stopping else limits.idle_time
            if now - self._idle_since > allowed:
                self._transport.close()
        elif self._current is None:
            self._reader.check(now)
            self._go_on()

    @property
    def buffered_size(self) -> int:
        """The bytes of a body that is not complete."""
        return self._reader.buffered_size

    def refuse(self, status: HTTPStatus, message: str) -> None:
        """Reads nothing more from this client."""
        self._reader.refuse(status, message)
        if self._current is None:
            self._go_on()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()

    def _go_on(self) -> None:
        """Answers the next request, says why there will be none, or waits for more bytes."""
        if self._lingers_since is not None:
            return
        if self._waiting:
            self._current = self._waiting.popleft()
            self._server.handle(self._current, self._reply)
        elif self._reader.refusal is not None:
            self._refuse()
            self._linger()
        elif not self._transport.is_reading():
            self._reader.restart_clock()
            self._transport.resume_reading()

    def _reply(self, response: Response) -> None:
        request, self._current = self._current, None
        if request is None or self._transport.is_closing():
            return
        keep_alive = request.keep_alive and not self._server.stopping and not response.closes
        self._write(request, response, keep_alive)
        self._idle_since = time.monotonic()
        if keep_alive:
            self._go_on()
        else:
            self._transport.close()

    def _write(self, request: Request, response: Response, keep_alive: bool) -> None:
        head = response.head(self._server.date + self._server.reception.headers(request), keep_alive)
        self._transport.write(head if request.method == "HEAD" else head + response.body)

    def _answer_head(self, request: Request) -> Response | None:
        request.client = self.address
        return self._server.reception.answer_head(request)

    def _refuse(self) -> None:
        refusal = self._reader.refusal
        assert refusal is not None
        request, response = refusal.request, refusal.response
        request.client = self.address
        if refusal.reason:
            response = self._server.reception.refused(request, response, refusal.reason)
        self._write(request, response, keep_alive=False)

    def _linger(self) -> None:
        # To close while the client still sends would reset the connection, and the answer would be lost.
        self._lingers_since = time.monotonic()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if not self._transport.is_reading():
            self._transport.resume_reading()

    def _send_continue(self) -> None:
        if self._current is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
