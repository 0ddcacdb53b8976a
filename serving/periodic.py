"""Threads that do the same again and again, whatever goes wrong."""

import logging
import threading
from collections.abc import Callable

from serving.errors import ServingError

logger = logging.getLogger("serving")


class Attempts:
    """Calls functions that share a task; logs an exception as "Could not <task>: ..." instead of raising it.

    An exception that is raised again at the next call is not logged again. A traceback is logged too, unless it is an
    OSError or a ServingError, which say enough.
    """

    def __init__(self, task: str) -> None:
        self._task = task
        self._complaint = ""

    def __call__(self, work: Callable[[], None]) -> bool:
        """Returns whether the function raised nothing."""
        try:
            work()
        except Exception as error:
            unexpected = not isinstance(error, (OSError, ServingError))
            if repr(error) != self._complaint:
                logger.error("Could not %s: %s", self._task, error, exc_info=unexpected)
            self._complaint = repr(error)
            return False
        self._complaint = ""
        return True


class Periodic:
    """A thread that attempts `work` once per interval, in seconds, from `start` to `stop`, and then `finish` once."""

    def __init__(
        self, task: str, work: Callable[[], None], interval: float, finish: Callable[[], None] | None = None
    ) -> None:
        self._work = work
        self._interval = interval
        self._finish = finish
        self._attempt = Attempts(task)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=task, daemon=True)

    def start(self) -> None:
        """Begins, if it has not already."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Returns when the last call has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._attempt(self._work)
        if self._finish is not None:
            self._attempt(self._finish)
