"""A connection between two workers of a run, beside those that TensorFlow makes."""

import contextlib
import json
import socket
import threading
from typing import Any

SILENCE_SECONDS = 30  # after which a machine that answers nothing counts as gone


class Connection:
    """A connection to another worker: a JSON document a line, each way."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._lines = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, **message: Any) -> None:
        """Sends one message.

        Raises:
            OSError: The other worker is gone.
        """
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None = None) -> Any:
        """Waits for one message.

        Args:
            timeout: Seconds to wait; None for ever.

        Raises:
            OSError: The other worker is gone, or silent for too long.
            ValueError: What came is no message.
        """
        self._socket.settimeout(timeout)
        line = self._lines.readline()
        if not line:
            raise ConnectionResetError("the connection was closed")
        return json.loads(line)

    @property
    def is_open(self) -> bool:
        """Whether the other side, which is silent, has not closed it."""
        self._socket.settimeout(0)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def keep_alive(self) -> None:
        """Makes `receive` fail after `SILENCE_SECONDS` without a sign of the other machine."""
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", SILENCE_SECONDS // 2),
            ("TCP_KEEPINTVL", SILENCE_SECONDS // 6),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", SILENCE_SECONDS * 1000),  # also while something sent is not acknowledged
        ):
            if hasattr(socket, name):  # Linux has all of them
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def hang_up(self) -> None:
        """Ends it while another thread waits in `receive`, which fails there and on the other side."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Gives it back to the system."""
        self._lines.close()
        self._socket.close()
