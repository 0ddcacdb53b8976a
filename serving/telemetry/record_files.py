"""Files of TFRecords, one after the other; a file that is still being written has `.part` at the end of its name."""

import os
import re
import time
from datetime import UTC, datetime

import tensorflow as tf

from serving.options import Options

PART = ".part"
"""Ends the name of a file that is not whole."""

_FRAME_SIZE = 16  # bytes around a record: its length and two checksums
_TIME = r"-\d{8}T\d{6}\.\d{6}Z"


class RecordFiles:
    """Writes records to files `<prefix>-<time>.tfrecord`, which the server's user and its group can read.

    The options say at which size and age a file is whole, and how many files are kept.
    """

    def __init__(self, prefix: str, options: Options) -> None:
        self._prefix = prefix
        self._options = options
        self._writer: tf.io.TFRecordWriter | None = None
        self._path = ""
        self._size = 0
        self._begun = 0.0  # by the monotonic clock

    def write(self, record: bytes) -> None:
        """Writes a record so that it outlives this process. Raises OSError if it cannot."""
        try:
            writer = self._writer or self._begin()
            writer.write(record)
            writer.flush()
        except tf.errors.OpError as error:
            self.end()
            raise OSError(error.message) from error
        self._size += len(record) + _FRAME_SIZE
        if self._size >= self._options.request_log_max_file_bytes:
            self.end()

    def end_if_old(self) -> None:
        """Ends the file if it is old enough. Raises OSError if it cannot."""
        if time.monotonic() - self._begun >= self._options.request_log_max_file_seconds:
            self.end()

    def end(self) -> None:
        """Gives the file that was begun its final name, and removes the oldest files. Raises OSError if it cannot."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        part = self._path + PART
        os.truncate(part, self._size)  # cuts off a record that a full disk took in part
        if self._size:
            os.rename(part, self._path)
        else:
            os.unlink(part)
        self._remove_oldest()

    def _begin(self) -> tf.io.TFRecordWriter:
        os.makedirs(os.path.dirname(self._prefix), exist_ok=True)
        self._path = f"{self._prefix}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.tfrecord"
        self._size, self._begun = 0, time.monotonic()
        # TensorFlow would overwrite a file of another process, and let everybody read it.
        os.close(os.open(self._path + PART, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        self._writer = tf.io.TFRecordWriter(self._path + PART)
        return self._writer

    def _remove_oldest(self) -> None:
        if not self._options.request_log_max_files:
            return
        folder, name = os.path.split(self._prefix)
        own = re.compile(re.escape(name) + _TIME + r"\.tfrecord(\.part)?")  # a killed process leaves a part
        for each in sorted(filter(own.fullmatch, os.listdir(folder)))[: -self._options.request_log_max_files]:
            os.unlink(os.path.join(folder, each))
