"""Files of TFRecords, one after another: each has its name once it is whole, and `.part` behind it until then."""

import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import tensorflow as tf

PART = ".part"
"""Ends the name of a file that is not whole."""

_FRAME_SIZE = 16  # bytes before and behind a record: its length and two checksums
_TIME = r"-\d{8}T\d{6}\.\d{6}Z"


@dataclass(frozen=True)
class Rotation:
    """When a file is whole, by its bytes and by its age in seconds, and how many are kept; 0 keeps all."""

    max_bytes: int
    max_seconds: float
    max_files: int


class RecordFiles:
    """Writes records to files `<prefix>-<time>.tfrecord`, for the eyes of the server's user and its group."""

    def __init__(self, prefix: str, rotation: Rotation) -> None:
        self._prefix = prefix
        self._rotation = rotation
        self._writer: tf.io.TFRecordWriter | None = None
        self._path = ""
        self._size = 0
        self._begun = 0.0  # by the monotonic clock

    def write(self, record: bytes) -> None:
        """Has a record in the file, beyond the end of this process. Raises OSError where it is not written."""
        try:
            writer = self._writer or self._begin()
            writer.write(record)
            writer.flush()
        except tf.errors.OpError as error:
            self.end()
            raise OSError(error.message) from error
        self._size += len(record) + _FRAME_SIZE
        if self._size >= self._rotation.max_bytes:
            self.end()

    def end_if_old(self) -> None:
        """Gives the file its name once it is old enough. Raises OSError where it cannot."""
        if self._writer is not None and time.monotonic() - self._begun >= self._rotation.max_seconds:
            self.end()

    def end(self) -> None:
        """Gives the file its name, if one is begun, and removes the oldest. Raises OSError where it cannot."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        part = self._path + PART
        os.truncate(part, self._size)  # a record of which the disk took but a part goes
        if self._size:
            os.rename(part, self._path)
        else:
            os.unlink(part)
        self._remove_oldest()

    def _begin(self) -> tf.io.TFRecordWriter:
        os.makedirs(os.path.dirname(self._prefix), exist_ok=True)
        self._path = f"{self._prefix}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.tfrecord"
        self._size, self._begun = 0, time.monotonic()
        # TensorFlow would write over a file of another process, and let everybody read it.
        os.close(os.open(self._path + PART, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        self._writer = tf.io.TFRecordWriter(self._path + PART)
        return self._writer

    def _remove_oldest(self) -> None:
        if not self._rotation.max_files:
            return
        folder, name = os.path.split(self._prefix)
        own = re.compile(re.escape(name) + _TIME + r"\.tfrecord(\.part)?")  # such as a killed process leaves, too
        for each in sorted(filter(own.fullmatch, os.listdir(folder)))[: -self._rotation.max_files]:
            os.unlink(os.path.join(folder, each))
