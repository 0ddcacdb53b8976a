"""One HTTP/1.1 connection: its requests are answered one after another, and it ends if its client is too slow."""

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Concatenate, ParamSpec, Protocol, cast

from serving.http.reader import RequestReader
from serving.http.reception import Reception
from serving.http.requests import Limits, Request
from serving.http.responses import Response

logger = logging.getLogger("serving")

P = ParamSpec("P")


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

    def count_bodies(self, change: int) -> None:
        """Counts the bytes of bodies that have come or gone."""

    def handle(self, request: Request, reply: Callable[[Response], None]) -> None:
        """Has a request answered; `reply` is called later, in the thread of this call."""

    def failed(self, request: Request) -> Response:
        """Logs the exception that is being handled; the answer to a request that it happened to."""


def _ending_on_failure(
    method: Callable[Concatenate["Connection", P], None],
) -> Callable[Concatenate["Connection", P], None]:
    """A method of a connection that nobody waits for: an exception is logged, and ends the connection."""

    def call(self: "Connection", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            logger.exception("A connection of %s failed", self.address)
            self.abort()

    return call


class Connection(asyncio.Protocol):
    """What asyncio calls as bytes come and go, and the server from time to time."""

    def __init__(self, server: Server, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._tls = tls
        self._handshake: asyncio.Task[None] | None = None  # as long as it lasts
        self._early = b""  # what came before the handshake began, or with its end
        self._reader = RequestReader(server.limits, self._answer_head)
        self._waiting: deque[Request] = deque()  # sent before the first was answered
        self._current: Request | None = None
        self._idle_since = time.monotonic()
        self._counted_size = 0  # bytes of bodies, by the server's count
        self._is_blocked = False  # the client does not take what it asked for, and the buffers are full
        self._unsent_size = 0  # bytes of answers, when it was looked last
        self._unsent_since = 0.0  # when some of them were sent last
        self._closes_when_sent = False
        self._lingers_since: float | None = None  # the client was refused, and may still be sending
        self._transport: asyncio.Transport
        self._socket_transport: asyncio.Transport
        """The same, or the one below TLS."""
        self.address = ""
        """The client's."""

    @_ending_on_failure
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self._transport = self._socket_transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        is_admitted = self._server.admit(self)
        if self._tls is not None:
            if is_admitted:
                self._handshake = asyncio.get_running_loop().create_task(self._start_tls(self._tls))
            else:  # to say why would take a handshake
                self._transport.abort()
        elif not is_admitted:
            self._reader.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The server has too many connections.")
            self._refuse()
            self._lingers_since = self._idle_since  # whatever else comes is passed over
            self._transport.close()

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        limits, loop = self._server.limits, asyncio.get_running_loop()
        shaking = loop.create_task(
            loop.start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=limits.handshake_time,
                ssl_shutdown_timeout=limits.linger_time,
            )
        )
        for _ in range(2):  # until its protocol is the transport's, and then is connected, too
            await asyncio.sleep(0)
        try:
            self._pass_on_early()
            transport = await shaking
            if transport is None or self._socket_transport.is_closing():
                raise ConnectionAbortedError
        except Exception as error:  # of TLS, or since the client has gone
            self._socket_transport.abort()
            self.connection_lost(error)
            return
        self._transport, self._handshake = transport, None
        self._idle_since = time.monotonic()
        if self._early:
            self.data_received(self._early)

    def _pass_on_early(self) -> None:
        """Gives to TLS what was read before: uvloop begins to read whatever `connection_made` says."""
        early, self._early = self._early, b""
        protocol: object = self._socket_transport.get_protocol()
        if early and protocol is not self:
            buffered = cast(asyncio.BufferedProtocol, protocol)  # uvloop's is one by what it does
            memoryview(buffered.get_buffer(len(early)))[: len(early)] = early
            buffered.buffer_updated(len(early))

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, or this side has ended the connection."""
        self._server.dismiss(self)
        self._waiting.clear()
        self._reader.drop_body()
        self._count_bodies(self._held_size())  # a body that a thread has is counted until it is answered
        if self._current is not None:
            self._current.cancelled = True

    @_ending_on_failure
    def data_received(self, data: bytes) -> None:
        """Bytes have come in."""
        if self._handshake is not None:
            self._early += data
            return
        self._waiting += self._reader.feed(data)
        self._count_bodies(self._held_size())
        if self._current is None:
            self._go_on()
        if self._waiting:  # more than one at a time need not be in memory
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client does not read, and the buffers are full."""
        self._is_blocked = True

    @_ending_on_failure
    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_blocked = False
        if self._current is None and self._handshake is None:
            self._go_on()

    @_ending_on_failure
    def check(self, now: float) -> None:
        """Ends what takes too long."""
        limits = self._server.limits
        if self._handshake is not None:
            if self._server.stopping:
                self._transport.abort()
        elif self._lingers_since is not None:
            if now - self._lingers_since > limits.linger_time:
                self._transport.abort()
        elif self._has_unsent(now):
            if now - self._unsent_since > limits.head_time:
                self._transport.abort()
        elif self._closes_when_sent:
            self._transport.close()
        elif self._current is None and self._reader.is_idle:
            # One that has just been answered may be sending already, and should not find the connection closed.
            allowed = limits.last_idle_time if self._server.stopping else limits.idle_time
            if now - self._idle_since > allowed:
                self._transport.close()
        elif self._current is None:
            self._reader.check(now)
            self._go_on()

    def _has_unsent(self, now: float) -> bool:
        """Whether a part of an answer is not sent. A client that takes it slowly shows by a smaller rest."""
        size = self._socket_transport.get_write_buffer_size()
        if self._transport is not self._socket_transport:
            size += self._transport.get_write_buffer_size()
        if not size or size < self._unsent_size or not self._unsent_size:
            self._unsent_since = now
        self._unsent_size = size
        if size:
            self._idle_since = now
        return size > 0

    @property
    def buffered_size(self) -> int:
        """The bytes of a body that is not complete."""
        return self._reader.buffered_size

    def _held_size(self) -> int:
        """The bytes of all bodies that are not answered."""
        current = len(self._current.body) if self._current is not None else 0
        return self.buffered_size + current + sum(len(each.body) for each in self._waiting)

    def _count_bodies(self, size: int) -> None:
        if change := size - self._counted_size:
            self._counted_size = size
            self._server.count_bodies(change)

    @_ending_on_failure
    def refuse(self, status: HTTPStatus, message: str) -> None:
        """Reads nothing more from this client."""
        self._reader.refuse(status, message)
        self._count_bodies(self._held_size())
        if self._current is None:
            self._go_on()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()

    def _go_on(self) -> None:
        """Answers the next request, says why there will be none, or waits for more bytes."""
        if self._lingers_since is not None or self._is_blocked or self._closes_when_sent:
            return
        if self._waiting:
            self._current = self._waiting.popleft()
            self._server.handle(self._current, self._reply)
        elif self._reader.refusal is not None:
            self._refuse()
            self._linger()
        else:
            if self._reader.gives_leave():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if not self._transport.is_reading():
                self._reader.restart_clock()
                self._transport.resume_reading()

    @_ending_on_failure
    def _reply(self, response: Response) -> None:
        request, self._current = self._current, None
        self._count_bodies(self._held_size())
        if request is None or self._transport.is_closing():
            return
        keep_alive = request.keep_alive and not self._server.stopping and not response.closes
        self._write(request, response, keep_alive)
        self._idle_since = time.monotonic()
        if keep_alive:
            self._go_on()
        elif self._has_unsent(self._idle_since):  # TLS would end before all of it is sent
            self._closes_when_sent = True
            self._transport.pause_reading()
        else:
            self._transport.close()

    def _write(self, request: Request, response: Response, keep_alive: bool) -> None:
        head = response.head(self._server.date + self._server.reception.headers(request), keep_alive)
        self._transport.write(head if request.method == "HEAD" else head + response.body)

    def _answer_head(self, request: Request) -> Response | None:
        request.client = self.address
        try:
            return self._server.reception.answer_head(request)
        except Exception:
            return self._server.failed(request)

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
