"""A server in a process of its own: it gets the signals of this one, ends with it, and gives it its exit status."""

import ctypes
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from serving.errors import Code, ServingError
from serving.options import Options
from serving.process import Interruptions, notify

_LOOK = 0.1  # seconds between looks whether it listens
_SAID_WHY = 255  # the status of tensorflow_model_server after its own line
_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


def run(command: Sequence[str], options: Options, interruptions: Interruptions, death_signal: int) -> int:
    """Runs a server, and returns its exit status as shells have it.

    On Linux it gets the death signal if this process is killed. Raises ServingError if it cannot run, or ends without
    being asked before it listens on a port of the options.
    """
    child, signals = _start(command, death_signal), list[int]()

    def pass_on(number: int) -> None:
        signals.append(number)
        child.send_signal(number)

    interruptions.pass_on(pass_on)
    has_started = _wait_until_it_listens(child, options.host, options.port or options.rest_api_port)
    if has_started:
        notify("READY=1", "STATUS=Serving")
    code = child.wait()
    status = code if code >= 0 else 128 - code
    if not signals and status != _SAID_WHY:
        ended = f"{command[0]} ended by itself with status {status}"
        if not has_started:
            raise ServingError(Code.UNAVAILABLE, ended)
        print(ended, file=sys.stderr)
    return status


def _start(command: Sequence[str], death_signal: int) -> subprocess.Popen[bytes]:
    print(f"Running {shlex.join(command)}", file=sys.stderr, flush=True)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            process_group=0,  # so that a terminal's Ctrl-C reaches it once, passed on
            preexec_fn=_end_with(os.getpid(), death_signal),
        )
    except OSError as error:
        raise ServingError(Code.FAILED_PRECONDITION, f"Cannot run {command[0]}: {error.strerror}") from error


def _wait_until_it_listens(child: subprocess.Popen[bytes], host: str, port: int) -> bool:
    """Returns whether it listens before it ends. Without a port, nobody knows."""
    while port and child.poll() is None:
        with suppress(OSError), socket.create_connection((host, port), _LOOK):
            return True
        time.sleep(_LOOK)
    return not port


def _end_with(parent: int, death_signal: int) -> Callable[[], None] | None:
    """The function that the child calls before it becomes the server."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return set_death_signal
