"""The access log: one line of JSON per request, and the request id that it shares with the client.

A thread writes all new lines at once, four times per second, so that no request waits for the disk. The standard
library's QueueListener and WatchedFileHandler write line by line, which takes twice the CPU time, and lose lines
while the disk is full.
"""

import json
import logging
import os
import random
import re
import sys
import time
from collections import deque
from datetime import UTC, datetime

import orjson

from serving.background import Periodic, stamp
from serving.call import Call

logger = logging.getLogger("serving")

STDOUT = "-"
REQUEST_ID_HEADER = "x-request-id"

_PAUSE = 0.25  # seconds between writes
_MOST_WAITING = 100_000  # lines
_FORMAT = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_LONGEST_NAME = 256  # characters of what clients invent
_SAFE_REQUEST_ID = re.compile(r"[\w.:;,@/+=~-]{1,128}", re.ASCII)


class AccessLog:
    """Writes lines to a file, or to stdout if the path is `STDOUT`, from `start` to `stop`.

    The file may be renamed or removed at any time; a new one is begun within a second. While nothing can be written,
    100,000 lines wait. Further lines are lost; their number is logged.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: deque[bytes] = deque()
        self._num_lost = 0
        self._unwritten = b""
        self._is_torn = False  # the disk took a part of the first line of these
        self._file = -1
        self._stamp: tuple[int, ...] = ()
        self._thread = Periodic("write the access log", self._write, _PAUSE, self._close)

    def start(self) -> None:
        """Opens the file. Raises OSError if it cannot."""
        self._open()
        self._thread.start()

    def stop(self) -> None:
        """Writes the lines that wait, and closes the file."""
        self._thread.stop()

    def add(self, call: Call, status: int | str, size: int, reason: str = "") -> None:
        """Adds the line of a call that has just been answered; the reason is that of a request that is not whole."""
        if len(self._lines) < _MOST_WAITING:
            self._lines.append(_line(call, status, size, reason))
        else:
            self._num_lost += 1

    def _write(self) -> None:
        if self._path != STDOUT and stamp(self._path)[:2] != self._stamp:
            self._open()
        self._put(self._unwritten)
        self._put(b"".join([self._lines.popleft() for _ in range(len(self._lines))]))
        if self._num_lost:
            lost, self._num_lost = self._num_lost, 0
            self._put(_json({"dropped": lost}))

    def _put(self, lines: bytes) -> None:
        self._unwritten = lines
        while self._unwritten:
            text = b"\n" * self._is_torn + self._unwritten
            size = os.write(self._file, text)
            num_whole = text.rfind(b"\n", 0, size) + 1
            self._is_torn = size > num_whole
            self._unwritten = text[num_whole:]

    def _open(self) -> None:
        if self._path == STDOUT:
            self._file = os.dup(sys.stdout.fileno())
            return
        before, self._file = self._file, os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        status = os.fstat(self._file)
        self._stamp, self._is_torn = (status.st_dev, status.st_ino), False
        if before >= 0:  # only now, and once: the number of a file that is closed may become that of a socket
            os.close(before)

    def _close(self) -> None:
        try:
            self._write()
        finally:
            os.close(self._file)
            lost = self._num_lost + self._unwritten.count(b"\n") + len(self._lines)
            if lost:
                logger.error("The access log has lost %d lines", lost)


def request_id(given: str) -> str:
    """The client's id of a request if it is safe to write down, or a new one."""
    return given if _SAFE_REQUEST_ID.fullmatch(given) else random.randbytes(16).hex()


def _line(call: Call, status: int | str, size: int, reason: str) -> bytes:
    started = call.started or call.arrived
    seconds = time.perf_counter() - started
    return _json(
        {
            "time": datetime.fromtimestamp(time.time() - seconds, UTC),
            "request_id": call.request_id,
            "trace_id": call.trace_id,
            "transport": call.transport,
            "client": call.client,
            "method": call.method,
            "route": call.path[:_LONGEST_NAME],
            "token": call.token,
            "model": call.model[:_LONGEST_NAME],
            "version": call.version,
            "signature": call.signature[:_LONGEST_NAME],
            "status": status,
            "bytes": size,
            "queue_ms": round(call.queue_time * 1e3, 3),
            "run_ms": round(call.run_time * 1e3, 3),
            "ms": round(seconds * 1e3, 3),
            "reason": reason,
        }
    )


def _json(fields: dict[str, object]) -> bytes:
    known = {name: value for name, value in fields.items() if value != ""}
    try:
        return orjson.dumps(known, option=_FORMAT)
    except TypeError:  # a name has half of a surrogate pair, which UTF-8 does not encode
        return json.dumps(known, default=str).encode() + b"\n"
