"""Runs an ASGI application on a socket, in a thread of its own."""

import socket
import threading
from typing import Any

import uvicorn

from serving.errors import Code, ServingError

_FIRST_LOOK = 0.01  # seconds


class HttpServer:
    """uvicorn in a thread: started by `start`, ended by `stop`."""

    def __init__(self, application: Any, bound: socket.socket, grace: float) -> None:
        config = uvicorn.Config(
            application,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(grace),
        )
        self._server = uvicorn.Server(config)
        self._socket = bound
        self._thread = threading.Thread(target=self._run, name="rest", daemon=True)

    def start(self) -> None:
        """Returns once connections are accepted. Raises ServingError where they cannot be."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(_FIRST_LOOK)
        if not self._server.started:
            port = self._socket.getsockname()[1]
            raise ServingError(Code.UNAVAILABLE, f"Cannot listen on --rest_api_port={port}: it was just taken")

    def stop(self) -> None:
        """Accepts nothing more; requests in flight are answered within the time of grace."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
