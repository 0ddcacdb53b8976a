"""An ASGI application behind a socket: uvicorn in a thread of its own, with limits for clients."""

import asyncio
import logging
import os
import socket
import ssl
import time
from contextlib import suppress
from typing import cast

import uvicorn
from uvicorn._types import ASGI3Application, HTTPScope

from serving.background import BackgroundThread
from serving.errors import Code, ServingError
from serving.rest.connection import Connection, Limits, Refused, Shared, refusal

logger = logging.getLogger("serving")

_BACKLOG = 2048  # connections that wait to be accepted
_TICKS = 5  # of uvicorn, ten per second, between looks at connections that may take too long
_LAST_LOOK = 0.05  # seconds between looks while the server stops


class AsgiServer(uvicorn.Server):
    """Started by `start`, ended by `stop`."""

    def __init__(
        self,
        app: ASGI3Application,
        bound: socket.socket,
        grace: float,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        refused: Refused = lambda scope, status, reason, size: [],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )
        self._shared = Shared(limits=limits or Limits(), refused=refused)
        self._socket = bound
        self._grace = grace  # seconds
        self._tls = tls
        self._thread = BackgroundThread(self.run, "rest")
        self._connecting: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accepts connections from now on. Raises ServingError where the port was taken since it was bound."""
        try:
            self._socket.listen(_BACKLOG)
        except OSError as error:
            port = self._socket.getsockname()[1]
            reason = f"Cannot listen on --rest_api_port={port}: {os.strerror(error.errno or 0)}"
            raise ServingError(Code.UNAVAILABLE, reason) from error
        self._socket.setblocking(False)
        self._thread.start()

    def stop(self, grace: float | None = None) -> None:
        """Accepts nothing more; requests in flight are answered within the time of grace, or another one."""
        self._grace = self._grace if grace is None else grace
        self._shared.stopping = self.should_exit = True
        if self._thread.is_alive():
            self._thread.join()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept connections, instead of uvicorn, which knows no limit before the handshake of TLS."""
        asyncio.get_running_loop().add_reader(self._socket, self._accept)
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Looks after connections besides uvicorn's own work."""
        if counter % _TICKS == 0:
            self._look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets requests end within the time of grace."""
        end = time.monotonic() + self._grace
        asyncio.get_running_loop().remove_reader(self._socket)
        for _ in range(_BACKLOG):  # clients that have connected already, whom the end of the socket would reset
            if not self._accept():
                break
        self._socket.close()
        if self._connecting:
            await asyncio.wait(self._connecting, timeout=min(self._grace, self._shared.limits.last_idle_time))
        for task in self._connecting:
            task.cancel()
        while self.server_state.connections and time.monotonic() < end:
            self._look()
            await asyncio.sleep(_LAST_LOOK)
        for connection in self._connections():
            connection.abort()
        await asyncio.sleep(_LAST_LOOK)  # sockets are closed meanwhile

    def _accept(self) -> bool:
        """Accepts the next connection. Returns whether there was one."""
        try:
            accepted, peer = self._socket.accept()
        except BlockingIOError:  # the client has gone
            return False
        except OSError:  # no descriptor is free
            self._pause()
            return False
        try:
            accepted.setblocking(False)
            self._admit(accepted, peer)
        except Exception:
            logger.exception("A connection failed")
            accepted.close()
        return True

    def _pause(self) -> None:
        """Accepts nothing for a moment."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.call_later(_LAST_LOOK, self._go_on)

    def _go_on(self) -> None:
        if not self.should_exit:  # the socket may have been closed
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _admit(self, accepted: socket.socket, peer: tuple[str, int]) -> None:
        if self._is_full(peer[0]):
            self._turn_away(accepted, peer)
        else:
            task = asyncio.create_task(self._connect(accepted, peer[0]))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _is_full(self, address: str) -> bool:
        limits, connections = self._shared.limits, self._connections()
        num_alike = sum(each.address == address for each in connections) if limits.connections_per_address else 0
        return 0 < limits.connections <= len(connections) or 0 < limits.connections_per_address <= num_alike

    def _turn_away(self, accepted: socket.socket, peer: tuple[str, int]) -> None:
        if self._tls is not None:  # to say why would take a handshake
            accepted.close()
            return
        with accepted, suppress(OSError):  # the client may have gone
            scope = cast(HTTPScope, {"type": "http", "method": "", "path": "", "headers": [], "client": peer[:2]})
            reason = "The server has too many connections."
            accepted.send(refusal(self.server_state, self._shared, scope, 503, reason))

    async def _connect(self, accepted: socket.socket, address: str) -> None:
        limits, times = self._shared.limits, {}
        if self._tls is not None:
            times = {"ssl_handshake_timeout": limits.handshake_time, "ssl_shutdown_timeout": limits.head_time}
        connection = Connection(self.config, self.server_state, self._shared, address)
        self.server_state.connections.add(connection)
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: connection, accepted, ssl=self._tls, **times)
        except (OSError, asyncio.CancelledError):  # of TLS, or since the client has gone
            self.server_state.connections.discard(connection)
            accepted.close()

    def _connections(self) -> list[Connection]:
        return [each for each in self.server_state.connections if isinstance(each, Connection)]

    def _look(self) -> None:
        now = time.monotonic()
        for connection in self._connections():
            try:
                connection.check(now)
            except Exception:
                logger.exception("A connection of %s failed", connection.address)
                connection.abort()
