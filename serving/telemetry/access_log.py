"""The access log: a line of JSON for each request, written by a thread of its own, so that no request waits for a disk.

The file may be renamed or removed by whatever rotates it: within a second a new one is begun.
"""

import logging
import os
import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from serving.background import Periodic, stamp
from serving.request_facts import RequestFacts

logger = logging.getLogger("serving")

STDOUT = "-"
_PAUSE = 0.25  # seconds between writes
_MOST_WAITING = 100_000  # lines; where the disk takes none, later ones are dropped and counted
_FORMAT = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_LONGEST_NAME = 256  # characters of what clients make up
_NOT_ALWAYS_KNOWN = ("trace_id", "client", "route", "token", "model", "version", "signature", "reason")


class Asked(NamedTuple):
    """What a request says of itself."""

    request_id: str
    transport: str
    client: str
    method: str
    route: str
    model: str


class Entry(NamedTuple):
    """A request that was answered. Times are in seconds, the first one since 1970."""

    time: float
    asked: Asked
    token: str
    version: str
    signature: str
    status: int | str
    size: int
    queue_time: float
    run_time: float
    whole_time: float
    trace_id: str = ""
    reason: str = ""
    """Why it was refused before it was a request."""

    def line(self) -> bytes:
        """What is written, without the names that are not known."""
        request_id, transport, client, method, route, model = self.asked
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(self.time, UTC),
            "request_id": request_id,
            "trace_id": self.trace_id,
            "transport": transport,
            "client": client,
            "method": method,
            "route": route[:_LONGEST_NAME],
            "token": self.token,
            "model": model[:_LONGEST_NAME],
            "version": self.version,
            "signature": self.signature[:_LONGEST_NAME],
            "status": self.status,
            "bytes": self.size,
            "queue_ms": round(self.queue_time * 1e3, 3),
            "run_ms": round(self.run_time * 1e3, 3),
            "ms": round(self.whole_time * 1e3, 3),
            "reason": self.reason,
        }
        for name in _NOT_ALWAYS_KNOWN:
            if not fields[name]:
                del fields[name]
        return _dumped(fields)


class AccessLog:
    """Lines for a file, or for stdout where the path is `STDOUT`; begun by `start`, and whole after `stop`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._entries: deque[Entry] = deque()
        self._num_dropped = 0
        self._is_torn = False  # the disk took a part of the last line
        self._thread = Periodic("write the access log", self._write, _PAUSE, self._close)
        self._file = -1
        self._stamp: tuple[int, ...] = ()

    def start(self) -> None:
        """Opens the file. Raises OSError where it cannot."""
        self._open()
        self._thread.start()

    def stop(self) -> None:
        """Writes what there is, and closes the file."""
        self._thread.stop()

    def add(self, entry: Entry) -> None:
        """Has a line written soon; it waits for nothing."""
        if len(self._entries) < _MOST_WAITING:
            self._entries.append(entry)
        else:
            self._num_dropped += 1

    def _write(self) -> None:
        if self._path != STDOUT and stamp(self._path)[:2] != self._stamp:
            self._open()  # where it cannot, lines wait
        lines = [self._entries.popleft().line() for _ in range(len(self._entries))]
        dropped, self._num_dropped = self._num_dropped, 0
        if dropped:
            lines.append(_dumped({"dropped": dropped}))
        unwritten = b"\n" * self._is_torn + b"".join(lines)
        try:
            while unwritten:
                size = os.write(self._file, unwritten)
                self._is_torn = not unwritten[:size].endswith(b"\n")
                unwritten = unwritten[size:]
        finally:
            if unwritten:  # the last line, which tells of those that were dropped before, is among these
                self._num_dropped += min(unwritten.count(b"\n"), len(lines)) - bool(dropped) + dropped

    def _close(self) -> None:
        try:
            self._write()
        finally:
            if self._path != STDOUT:
                os.close(self._file)
            lost = self._num_dropped + len(self._entries)
            if lost:
                logger.error("The access log has lost %d lines", lost)

    def _open(self) -> None:
        if self._path == STDOUT:
            self._file = sys.stdout.fileno()
            return
        before, self._file = self._file, os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        status = os.fstat(self._file)
        self._stamp = status.st_dev, status.st_ino
        if before >= 0:  # only now, and once: the number of a file that is closed may become that of a socket
            os.close(before)


def entry_of(asked: Asked, status: int | str, size: int, facts: RequestFacts, started: float) -> Entry:
    """An entry of the request that this thread has just answered, which it began to by the performance counter."""
    whole_time = time.perf_counter() - started
    return Entry(
        time.time() - whole_time,
        asked,
        facts.token,
        facts.version,
        facts.signature,
        status,
        size,
        facts.queue_time,
        facts.run_time,
        whole_time,
        facts.trace_id,
    )


def _dumped(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields, option=_FORMAT)
    except TypeError:  # names in which bytes are that are no UTF-8
        kept = {name: _utf8(value) if isinstance(value, str) else value for name, value in fields.items()}
        return orjson.dumps(kept, option=_FORMAT)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
