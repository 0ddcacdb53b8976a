"""HTTP/1.1 on a socket, in a thread of its own: an event loop that reads and writes, and threads that answer.

asyncio's protocols on httptools and uvloop, instead of an ASGI server on the same two: behind 32 connections it answers
twice as often, and it can refuse slow clients, endless headers and bodies that fill the memory.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from serving.errors import Code, ServingError
from serving.http.connection import Connection
from serving.http.reception import Reception
from serving.http.requests import Limits, Request
from serving.http.responses import Response
from serving.wire.json_text import error_body

logger = logging.getLogger("serving")

_BACKLOG = 2048  # connections that wait to be accepted
_LOOK = 0.5  # seconds between looks at connections that may take too long
_LAST_LOOK = 0.05  # and while the server stops
_GONE = Response(499, b"")  # which nobody reads
_TOO_MANY_BYTES = "The server holds too many bodies. Try again later."


class Application(Protocol):
    """What answers requests, in threads of its executor."""

    executor: Executor

    def answer(self, request: Request) -> Response:
        """The answer to a request; it raises nothing."""


class HttpServer:
    """An application behind a socket, and a reception before it: started by `start`, ended by `stop`."""

    def __init__(
        self,
        application: Application,
        bound: socket.socket,
        grace: float,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        reception: Reception | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.reception = reception or Reception()
        self.connections: set[Connection] = set()
        self._bodies_size = 0
        self._addresses: Counter[str] = Counter()
        self.stopping = False
        self.date = b""
        self._application = application
        self._socket = bound
        self._tls = tls
        self._grace = grace  # seconds
        self._loop = _event_loop()
        self._thread = threading.Thread(target=self._run, name="rest", daemon=True)
        self._woken = asyncio.Event()

    def start(self) -> None:
        """Accepts connections from now on. Raises ServingError where the port was taken since it was bound."""
        try:
            self._socket.listen(_BACKLOG)
        except OSError as error:
            port = self._socket.getsockname()[1]
            reason = f"Cannot listen on --rest_api_port={port}: {os.strerror(error.errno or 0)}"
            raise ServingError(Code.UNAVAILABLE, reason) from error
        self._thread.start()

    def stop(self, grace: float | None = None) -> None:
        """Accepts nothing more; requests in flight are answered within the time of grace, or another one."""
        self._grace = self._grace if grace is None else grace
        self.stopping = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._woken.set)
            self._thread.join()

    def admit(self, connection: Connection) -> bool:
        """Takes a connection up, unless it is one too many, in all or of its client's address."""
        limits, address = self.limits, connection.address
        if (limits.connections and len(self.connections) >= limits.connections) or (
            limits.connections_per_address and self._addresses[address] >= limits.connections_per_address
        ):
            return False
        self.connections.add(connection)
        self._addresses[address] += 1
        return True

    def dismiss(self, connection: Connection) -> None:
        """Forgets a connection that has ended."""
        if connection in self.connections:
            self.connections.remove(connection)
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    def count_bodies(self, change: int) -> None:
        """Counts the bytes of bodies that have come or gone. Refuses the largest incomplete ones where too many."""
        self._bodies_size += change
        while change > 0 and self._has_too_many_bytes():
            largest = max(self.connections, key=lambda each: each.buffered_size)
            if not largest.buffered_size:
                return
            largest.refuse(HTTPStatus.SERVICE_UNAVAILABLE, _TOO_MANY_BYTES)

    def handle(self, request: Request, reply: Callable[[Response], None]) -> None:
        """Has a request answered outside the event loop, which stays free to read and to write."""
        try:
            response = self._answer_at_once(request)
            if response is None:
                self._application.executor.submit(self._answer, request, reply)
                return
        except Exception:
            response = self.failed(request)
        self._loop.call_soon(reply, response)  # not from here: a thousand requests at once would be as many calls deep

    def failed(self, request: Request) -> Response:
        """Logs the exception that is being handled; the answer to a request that it happened to."""
        logger.exception("%s %s failed", request.method, request.path)
        return Response(500, error_body(ServingError(Code.INTERNAL, "Internal error; the server's log has more.")))

    def _answer_at_once(self, request: Request) -> Response | None:
        response = request.answer or self.reception.answer_at_once(request)
        if response is None and request.body and self._has_too_many_bytes():
            response = Response(503, error_body(ServingError(Code.UNAVAILABLE, _TOO_MANY_BYTES)))
            return self.reception.refused(request, response, _TOO_MANY_BYTES)
        return response

    def _has_too_many_bytes(self) -> bool:
        return self._bodies_size > self.limits.all_bodies_size

    def _answer(self, request: Request, reply: Callable[[Response], None]) -> None:
        try:
            response = _GONE if request.cancelled else self._application.answer(request)
        except Exception:
            response = self.failed(request)
        with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
            self._loop.call_soon_threadsafe(reply, response)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await self._loop.create_server(
            lambda: Connection(self, self._tls), sock=self._socket, backlog=_BACKLOG
        )
        while not self.stopping:
            self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _LOOK)
        server.close()
        end = time.monotonic() + self._grace
        while self.connections and time.monotonic() < end:
            self._look()
            await asyncio.sleep(_LAST_LOOK)
        for connection in list(self.connections):
            connection.abort()
        handshakes = asyncio.all_tasks() - {asyncio.current_task()}
        for each in handshakes:
            each.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)

    def _look(self) -> None:
        self.date = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        now = time.monotonic()
        for connection in list(self.connections):
            connection.check(now)


def _event_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
