"""A thread that writes what requests leave behind, so that no request waits for a disk."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("serving")

_PAUSE = 0.25  # seconds between writes


class WriterThread:
    """Calls `write` four times a second from `start` on, and then `close` once, at `stop`.

    An OSError of theirs is logged: once, and not four times a second.
    """

    def __init__(self, name: str, write: Callable[[], None], close: Callable[[], None]) -> None:
        self._name = name
        self._write = write
        self._close = close
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._complained = False

    def start(self) -> None:
        """Writes from now on, if it does not already."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Writes what there is, closes, and returns."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_PAUSE):
            self._attempt(self._write)
        self._attempt(self._write)
        self._attempt(self._close)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
            self._complained = False
        except OSError as error:
            if not self._complained:
                logger.error("Could not write the %s: %s", self._name, error)
            self._complained = True
