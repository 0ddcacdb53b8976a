"""First steps of the process: ports are bound before models load, and TensorFlow is imported quietly."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import Code, ServingError, invalid_argument

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
