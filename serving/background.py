"""Threads of the server that work in the background, and files that such a thread watches."""

import logging
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from serving.errors import Code, ServingError

logger = logging.getLogger("serving")

T = TypeVar("T")

_LOOK = 1.0  # seconds between looks at watched files
_dead = set[threading.Thread]()


class BackgroundThread(threading.Thread):
    """A daemon thread. If its function raises, the error is logged, and `dead` names the thread."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)

    def run(self) -> None:
        """Calls the function."""
        try:
            super().run()
        except BaseException:  # SystemExit, too, which would end the thread without a word
            _dead.add(self)
            logger.critical('The thread "%s" has died; restart the server', self.name, exc_info=True)

    def join(self, timeout: float | None = None) -> None:
        """Waits until the thread has ended; its owner needs it no more, so that it is no longer among the dead."""
        super().join(timeout)
        _dead.discard(self)


def dead() -> list[str]:
    """The names of the background threads of this process that an exception has ended."""
    return sorted(thread.name for thread in tuple(_dead))


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
        self._thread = BackgroundThread(self._run, task)

    def start(self) -> None:
        """Begins, if it has not already."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Returns when the last call has ended."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._attempt(self._work)
        if self._finish is not None:
            self._attempt(self._finish)


class WatchedFile(Generic[T]):
    """The content of a file, by a function that reads it. Raises ServingError if it cannot be read at first."""

    def __init__(self, path: str, read: Callable[[str], T]) -> None:
        self._path = path
        self._read = read
        self._seen = stamp(path)
        self._attempt = Attempts(f"read {path} again, so that its earlier content stays in use")
        self.value = read(path)

    def look(self) -> None:
        """Reads the file again if it has changed.

        A file that cannot be followed changes nothing. It is read again when it changes again, and at the next look if
        its content is not to blame: there may have been no free descriptor, or no room for a temporary file.
        """
        if stamp(self._path) != self._seen and self._attempt(self._take_over):
            logger.info("Read %s again", self._path)

    def _take_over(self) -> None:
        seen = stamp(self._path)
        try:
            self.value = self._read(self._path)
        except ServingError as error:
            if error.code is Code.INVALID_ARGUMENT:
                self._seen = seen
            raise
        self._seen = seen


class FileWatcher(Periodic):
    """A thread that looks once per second at files that may change while the server runs: certificates, tokens."""

    def __init__(self) -> None:
        super().__init__("follow files that change", self._look, _LOOK)
        self._looks: list[Callable[[], None]] = []

    def watch(self, path: str, read: Callable[[str], T]) -> WatchedFile[T]:
        """Keeps the content of a file up to date. Raises ServingError if it cannot be read at first."""
        file = WatchedFile(path, read)
        self._looks.append(file.look)
        return file

    def start(self) -> None:
        """Begins, if there is anything to look at."""
        if self._looks:
            super().start()

    def _look(self) -> None:
        for look in self._looks:
            look()


def stamp(path: str) -> tuple[int, ...]:
    """Numbers that change when the file, or a link to it, is written or replaced. Empty if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
