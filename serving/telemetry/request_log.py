"""The request log: a sample of the requests with their responses, as PredictionLogs in files of TFRecords.

This is the logging_config of TensorFlow Serving (core/request_logger.cc), with the collector that its open-source build
lacks. The files can serve as warm-up requests.
"""

import logging
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import tensorflow as tf
from google.protobuf.message import EncodeError, Message
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2, prediction_log_pb2, regression_pb2

from serving.background import Periodic
from serving.call import Call
from serving.errors import Code, invalid_argument
from serving.options import Options
from serving.telemetry.metrics import Metrics

logger = logging.getLogger("serving")

PART = ".part"
"""Ends the name of a file that is not whole."""

_FRAME_SIZE = 16  # bytes around a record: its length and two checksums
_TIME = r"-\d{8}T\d{6}\.\d{6}Z"
_PAUSE = 0.25  # seconds between writes
_MOST_WAITING = 64 * 1024 * 1024  # bytes
_KINDS = {
    predict_pb2.PredictRequest: "predict_log",
    classification_pb2.ClassificationRequest: "classify_log",
    regression_pb2.RegressionRequest: "regress_log",
    inference_pb2.MultiInferenceRequest: "multi_inference_log",
}


@dataclass(frozen=True)
class LoggingConfig:
    """The start of the names of a model's files, and the share of its requests that is logged."""

    filename_prefix: str = ""
    sampling_rate: float = 0.0


class RequestLog:
    """Logs requests of the models that `configure` names; the files are whole after `stop`.

    A thread writes the records, so that no request waits for the disk. Metrics count each record: as OK,
    RESOURCE_EXHAUSTED if too much waited already, or UNAVAILABLE if the disk did not take it.
    """

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self._options = options
        self._count = metrics.record_request_log
        self._configs: Mapping[str, LoggingConfig] = {}
        self._waiting: deque[tuple[str, str, bytes]] = deque()  # model, prefix, record
        self._num_bytes = 0
        self._counting = threading.Lock()
        self._has_dropped = False
        self._files: dict[str, RecordFiles] = {}
        self._thread = Periodic("write the request log", self._write, _PAUSE, self._close)

    def configure(self, configs: Mapping[str, LoggingConfig | None]) -> None:
        """Logs these models from now on, by the options where there is no config.

        Raises ServingError, and changes nothing, if the folder of a model cannot be written to.
        """
        completed = {model: self._complete(model, config) for model, config in configs.items()}
        sampled = {model: config for model, config in completed.items() if config.sampling_rate}
        for model, config in sampled.items():
            _make_folder(model, config.filename_prefix)
        self._configs = sampled
        if sampled:
            self._thread.start()

    def stop(self) -> None:
        """Writes the records that wait, and ends the files."""
        self._thread.stop()

    def samples(self, model: str) -> bool:
        """Whether to log this request to a model, by chance."""
        config = self._configs.get(model)
        return config is not None and random.random() < config.sampling_rate

    def add(self, call: Call, request: Message, response: Message) -> None:
        """Adds the request and the response of a call, as messages of PredictionService."""
        config = self._configs.get(call.model)
        if config is None:  # the configuration has just changed
            return
        try:
            content = _log(call, request, response, config.sampling_rate).SerializeToString()
        except EncodeError:  # both together are longer than a message can be
            self._drop(call.model)
            return
        with self._counting:
            fits = self._num_bytes + len(content) <= _MOST_WAITING
            if fits:
                self._num_bytes += len(content)
                self._waiting.append((call.model, config.filename_prefix, content))
        if not fits:
            self._drop(call.model)

    def _drop(self, model: str) -> None:
        self._count(model, Code.RESOURCE_EXHAUSTED)
        if not self._has_dropped:
            logger.error("The request log drops requests: they come sooner than they are written, or are too large")
        self._has_dropped = True

    def _write(self) -> None:
        failure = None
        for _ in range(len(self._waiting)):
            model, prefix, record = self._waiting.popleft()
            try:
                self._files.setdefault(prefix, RecordFiles(prefix, self._options)).write(record)
                code = Code.OK
            except Exception as error:  # of any kind: the record is counted, and the next one is tried
                code, failure = Code.UNAVAILABLE, error
            self._count(model, code)
            with self._counting:
                self._num_bytes -= len(record)
        self._end_files()
        if failure is not None:
            raise failure

    def _end_files(self) -> None:
        prefixes = {config.filename_prefix for config in self._configs.values()}
        for prefix, files in list(self._files.items()):
            if prefix in prefixes:
                files.end_if_old()
            else:
                del self._files[prefix]
                files.end()

    def _close(self) -> None:
        self._configs = {}
        self._write()

    def _complete(self, model: str, config: LoggingConfig | None) -> LoggingConfig:
        folder, name = self._options.request_log_dir, quote(model, safe="")
        if config is None:
            rate = self._options.request_log_sampling_rate if folder else 0.0
            return LoggingConfig(os.path.join(folder, name), rate)
        prefix = os.path.join(folder, config.filename_prefix or name)
        if config.sampling_rate and not folder and not os.path.isabs(prefix):
            raise invalid_argument(
                f"Model {model}: without --request_log_dir, filename_prefix in its logging_config has to be an "
                "absolute path"
            )
        return LoggingConfig(prefix, config.sampling_rate)


def _log(call: Call, request: Message, response: Message, sampling_rate: float) -> Message:
    log = prediction_log_pb2.PredictionLog()
    spec = log.log_metadata.model_spec
    spec.name, spec.version.value, spec.signature_name = call.model, int(call.version), call.signature
    log.log_metadata.sampling_config.sampling_rate = sampling_rate
    log.log_metadata.timestamp_secs = int(time.time())
    kind = getattr(log, _KINDS[type(request)])
    kind.request.CopyFrom(request)
    kind.response.CopyFrom(response)
    return log


def _make_folder(model: str, prefix: str) -> None:
    folder = os.path.dirname(prefix)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise invalid_argument(f"Model {model}: no request log in {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise invalid_argument(f"Model {model}: no request log in {folder}: it cannot be written to")


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
