"""Ends a process without half-written files: at Ctrl-C at once, at SIGTERM once a training run is saved."""

import contextlib
import functools
import os
import pathlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

STATUS = 130  # 128 + SIGINT, as shells have it
STOPPED_STATUS = 143  # 128 + SIGTERM
MESSAGE = "training: interrupted"
FIT_MESSAGE = "training: interrupted; the same command resumes from the newest checkpoint"

_unfinished: set[pathlib.Path] = set()


def end_at_signals(message: str = MESSAGE) -> None:
    """Makes SIGINT and SIGTERM end this process with a message, also where a shell started it with SIGINT ignored.

    It leaves without unwinding: a KeyboardInterrupt inside TensorFlow may be swallowed by a destructor, or leave a
    replica's thread waiting for ever. Nothing is lost, for what was saved is whole at every moment.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, functools.partial(_end, message))


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Lets SIGTERM wait while its block runs, and yields the function that says whether one has come.

    A second one does what SIGTERM did before the block. Only a process's main thread hears signals: in another one
    the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

    def ask(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(number, before)

    signal.signal(signal.SIGTERM, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def removed_if_interrupted(path: pathlib.Path) -> Iterator[None]:
    """Removes a file or folder when its block fails or the process is ended meanwhile."""
    _unfinished.add(path)
    try:
        yield
    except BaseException:
        _remove(path)
        raise
    finally:
        _unfinished.discard(path)


def _end(message: str, number: int, frame: Any) -> None:
    for path in list(_unfinished):
        _remove(path)
    os.write(2, f"{message}\n".encode())  # print may just have been interrupted itself, and cannot be entered twice
    os._exit(128 + number)


def _remove(path: pathlib.Path) -> None:
    shutil.rmtree(path, ignore_errors=True)  # does nothing to a file
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
