"""The process and its system: ports, a quiet import of TensorFlow, and systemd."""

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import Code, ServingError, invalid_argument

logger = logging.getLogger("serving")

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def bind(host: str, port: int, flag: str) -> socket.socket:
    """Returns a socket that is bound but does not listen yet. Raises ServingError, with the flag, if it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise invalid_argument(f"--host={host} is no address of this machine: {error.strerror}") from error
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
    with tempfile.TemporaryFile() as held_back:
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
