"""Records that wait for a disk, but not for long and not in any number: a thread writes them to files."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from serving.background import Periodic
from serving.errors import Code
from serving.telemetry.record_files import RecordFiles, Rotation

logger = logging.getLogger("serving")

_PAUSE = 0.25  # seconds between writes
_MOST_WAITING = 64 * 1024 * 1024  # bytes


@dataclass(frozen=True)
class Record:
    """What is to be written of a request to a model, and how the names of its files begin."""

    model: str
    prefix: str
    content: bytes


class RecordWriter:
    """Writes what `add` is given. `count` is told of each record: OK, RESOURCE_EXHAUSTED or UNAVAILABLE.

    The second is for what comes sooner than it is written, the third for what the disk did not take.
    """

    def __init__(self, rotation: Rotation, count: Callable[[str, Code], None]) -> None:
        self._rotation = rotation
        self._count = count
        self._waiting: deque[Record] = deque()
        self._num_bytes = 0
        self._counting = threading.Lock()
        self._files: dict[str, RecordFiles] = {}
        self._prefixes: Collection[str] = ()
        self._thread = Periodic("write the request log", self._write, _PAUSE, self._close)
        self._told_of_drops = False

    def keep(self, prefixes: Collection[str]) -> None:
        """Writes to files whose names begin so, and soon ends all others."""
        self._prefixes = prefixes
        if prefixes:
            self._thread.start()

    def stop(self) -> None:
        """Writes what there is, and gives the files their names."""
        self._thread.stop()

    def add(self, record: Record) -> None:
        """Has a record written soon; it waits for nothing."""
        size = len(record.content)
        with self._counting:
            fits = self._num_bytes + size <= _MOST_WAITING
            if fits:
                self._num_bytes += size
                self._waiting.append(record)
        if not fits:
            self.drop(record.model)

    def drop(self, model: str) -> None:
        """Counts a record that cannot wait to be written."""
        self._count(model, Code.RESOURCE_EXHAUSTED)
        if not self._told_of_drops:
            logger.error("The request log drops requests: they come sooner than they are written, or are too large")
        self._told_of_drops = True

    def _write(self) -> None:
        failure = None
        for _ in range(len(self._waiting)):
            record = self._waiting.popleft()
            try:
                self._files_of(record.prefix).write(record.content)
                code = Code.OK
            except Exception as error:  # of any kind: a record that is in no file is counted, and the next one tried
                code, failure = Code.UNAVAILABLE, error
            self._count(record.model, code)
            with self._counting:
                self._num_bytes -= len(record.content)
        self._end_files()
        if failure is not None:
            raise failure

    def _files_of(self, prefix: str) -> RecordFiles:
        if prefix not in self._files:
            self._files[prefix] = RecordFiles(prefix, self._rotation)
        return self._files[prefix]

    def _end_files(self) -> None:
        for prefix, files in list(self._files.items()):
            if prefix in self._prefixes:
                files.end_if_old()
            else:
                del self._files[prefix]
                files.end()

    def _close(self) -> None:
        self._prefixes = ()
        self._write()
