"""Ends the process at Ctrl-C or SIGTERM: at once, saying so, with nothing half-written left."""

import contextlib
import os
import pathlib
import shutil
import signal
from collections.abc import Iterator
from typing import Any

STATUS = 130  # 128 + SIGINT, as shells have it
MESSAGE = "training: interrupted; the same command goes on from the newest checkpoint"

_unfinished: set[pathlib.Path] = set()


def end_at_signals() -> None:
    """Makes SIGINT and SIGTERM end this process, also where a shell started it with SIGINT ignored.

    It leaves without unwinding: a KeyboardInterrupt inside TensorFlow may be swallowed by a destructor, or leave a
    replica's thread waiting for ever. Nothing is lost, for what was saved is whole at every moment.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


@contextlib.contextmanager
def removed_if_interrupted(folder: pathlib.Path) -> Iterator[None]:
    """Removes a folder when its block fails or the process is ended meanwhile."""
    _unfinished.add(folder)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        _unfinished.discard(folder)


def _end(number: int, frame: Any) -> None:
    for folder in list(_unfinished):
        shutil.rmtree(folder, ignore_errors=True)
    os.write(2, f"{MESSAGE}\n".encode())  # print may just have been interrupted itself, and cannot be entered twice
    os._exit(STATUS)
