"""Files that may change while the server runs: certificates, tokens. What they say is taken over within a second."""

import logging
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from serving.errors import Code, ServingError
from serving.periodic import Periodic

logger = logging.getLogger("serving")

T = TypeVar("T")

_LOOK = 1.0  # seconds between looks


class WatchedFile(Generic[T]):
    """What a file says, by a function that reads it. Raises ServingError where it cannot be read at first."""

    def __init__(self, path: str, read: Callable[[str], T]) -> None:
        self.path = path
        self._read = read
        self._seen = stamp(path)
        self._complaint = ""
        self.value = read(path)

    def look(self) -> None:
        """Reads the file again where it has changed.

        A file that cannot be followed changes nothing. It is read again when it changes again, and at the next look if
        its content is not to blame: there may have been no free descriptor, or no room for a temporary file.
        """
        seen = stamp(self.path)
        if seen == self._seen:
            return
        try:
            self.value = self._read(self.path)
        except Exception as error:
            if isinstance(error, ServingError) and error.code is Code.INVALID_ARGUMENT:
                self._seen = seen
            complaint = f"{seen} {error}"
            if complaint != self._complaint:  # once, and not at each look
                unexpected = not isinstance(error, (ServingError, OSError))
                logger.error("Went on with what %s said before: %s", self.path, error, exc_info=unexpected)
            self._complaint = complaint
            return
        self._seen, self._complaint = seen, ""
        logger.info("Took over what %s says now", self.path)


class FileWatcher:
    """A thread that looks at files once a second."""

    def __init__(self) -> None:
        self._files: list[WatchedFile[Any]] = []
        self._thread = Periodic("follow files that change", self._look, _LOOK)

    def watch(self, path: str, read: Callable[[str], T]) -> WatchedFile[T]:
        """Keeps what a file says up to date. Raises ServingError where it cannot be read at first."""
        file = WatchedFile(path, read)
        self._files.append(file)
        return file

    def start(self) -> None:
        """Looks from now on, if there is anything to look at."""
        if self._files:
            self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._thread.stop()

    def _look(self) -> None:
        for file in self._files:
            file.look()


def stamp(path: str) -> tuple[int, ...]:
    """Changes with the file: where it was written to, replaced, or a link to it was. Empty where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
