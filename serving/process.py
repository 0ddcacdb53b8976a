"""The process and its system: signals, ports, a quiet import of TensorFlow, and systemd."""

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import IO

from serving.errors import Code, ServingError, invalid_argument
from serving.options import HOST_VARIABLE, Options

logger = logging.getLogger("serving")

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# The shell expects 130 of a program that Ctrl-C has ended; SIGTERM asks a service to end, which is no failure.
_EXIT_STATUSES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 0}


class Interruptions:
    """SIGINT and SIGTERM: the first one while serving ends `wait`, any other ends the process at once."""

    def __init__(self) -> None:
        self._caught: SimpleQueue[int] = SimpleQueue()  # may be filled by a handler that interrupts its own `get`
        self._waiting = False
        self._receive: Callable[[int], None] | None = None
        for number in _EXIT_STATUSES:
            signal.signal(number, self._handle)

    def wait(self, interval: float | None, sign: Callable[[], None]) -> int:
        """Waits for a signal and returns its exit status; calls `sign` once per interval, in seconds."""
        self._waiting = True
        while True:
            try:
                return _EXIT_STATUSES[self._caught.get(timeout=interval)]
            except Empty:
                sign()

    def pass_on(self, receive: Callable[[int], None]) -> None:
        """Gives every signal to a function from now on, and ends nothing."""
        self._receive = receive

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._receive is not None:
            self._receive(number)
            return
        # Imports and loads cannot be unwound quietly, and have nothing to clean up.
        if not self._waiting:
            os._exit(_EXIT_STATUSES[number])
        self._waiting = False
        self._caught.put(number)


def bind(host: str, port: int, flag: str) -> socket.socket:
    """Returns a socket that is bound but does not listen yet. Raises ServingError, with the flag, if it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise invalid_argument(
            f"{host} is no address of this machine: {error.strerror}. Give --host, or {HOST_VARIABLE} in the "
            "environment, an address to listen on, such as 127.0.0.1, or 0.0.0.0 for all"
        ) from error
    bound = socket.socket(family, kind, protocol)
    # Connections of a server that has just ended may still linger; a server that listens is noticed anyhow.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ServingError(
            Code.UNAVAILABLE,
            f"Cannot listen on --{flag}={port} of {host}: {os.strerror(error.errno or 0)}. "
            "Stop what listens there, or give another port",
        ) from error
    return bound


def check_ports(options: Options) -> None:
    """Raises ServingError if the server could not listen on a port, before it takes seconds to start."""
    for flag, port in (("port", options.port), ("rest_api_port", options.rest_api_port)):
        if port:
            bind(options.host, port, flag).close()


@contextmanager
def quiet_import() -> Iterator[None]:
    """Holds back what native code writes to standard error, and shows it if the import fails.

    TensorFlow writes about its devices before it looks at its log level. A level that the user has set shows all.
    """
    if _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = "2"
    sys.stderr.flush()
    terminal = os.dup(2)
    with _unnamed_file() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _unnamed_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except FileNotFoundError as error:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "No folder for temporary files can be written, and TensorFlow needs one. "
            "Set TMPDIR in the environment to one, such as /dev/shm",
        ) from error


def notify(*assignments: str) -> None:
    """Sends systemd assignments such as READY=1 (sd_notify(3)), if the environment names its socket.

    A failure is logged.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket, which has no file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall("\n".join(assignments).encode())
    except OSError as error:
        logger.warning("Could not notify systemd at %s: %s", os.environ["NOTIFY_SOCKET"], error)


def watchdog_interval() -> float | None:
    """Seconds between keep-alives: half of systemd's limit (sd_watchdog_enabled(3)). None if it asks for none."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    if not limit.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(limit) / 2e6
