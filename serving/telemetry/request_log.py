"""The request log: a sample of what requests asked and were answered, as PredictionLogs in files of TFRecords.

TensorFlow Serving's logging_config (core/request_logger.cc), with the collector that its open-source build lacks. The
files serve as warm-up requests as they are.
"""

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from google.protobuf.message import EncodeError
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from serving.errors import invalid_argument
from serving.options import Options
from serving.repository.config import ModelConfig
from serving.telemetry.metrics import Metrics
from serving.telemetry.record_files import Rotation
from serving.telemetry.record_writer import Record, RecordWriter

_KINDS = {
    predict_pb2.PredictRequest: "predict_log",
    classification_pb2.ClassificationRequest: "classify_log",
    regression_pb2.RegressionRequest: "regress_log",
    inference_pb2.MultiInferenceRequest: "multi_inference_log",
}


@dataclass(frozen=True)
class _Sample:
    rate: float
    prefix: str


class RequestLog:
    """Logs the models that `configure` names; the files are whole after `stop`."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self._options = options
        rotation = Rotation(
            options.request_log_max_file_bytes, options.request_log_max_file_seconds, options.request_log_max_files
        )
        self._writer = RecordWriter(rotation, metrics.record_request_log)
        self._samples: Mapping[str, _Sample] = {}

    def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Logs from now on as these say. Raises ServingError, and changes nothing, where there is no place for it."""
        samples = {config.name: self._sample(config) for config in configs}
        samples = {name: sample for name, sample in samples.items() if sample.rate}
        for name, sample in samples.items():
            _make_folder(name, sample.prefix)
        self._samples = samples
        self._writer.keep({sample.prefix for sample in samples.values()})

    def stop(self) -> None:
        """Writes what there is, and gives the files their names."""
        self._writer.stop()

    def samples(self, model: str) -> bool:
        """Whether to log a request to this model: drawn by lot."""
        sample = self._samples.get(model)
        return sample is not None and random.random() < sample.rate

    def add(self, request: Any, response: Any) -> None:
        """Has a request of PredictionService written soon, with its answer; it waits for nothing."""
        spec = response.results[0].model_spec if hasattr(response, "results") else response.model_spec
        sample = self._samples.get(spec.name)
        if sample is None:  # by another configuration since
            return
        try:
            content = _log(request, response, spec, sample.rate).SerializeToString()
        except EncodeError:  # both together are longer than a message can be
            self._writer.drop(spec.name)
            return
        self._writer.add(Record(spec.name, sample.prefix, content))

    def _sample(self, config: ModelConfig) -> _Sample:
        folder, logging = self._options.request_log_dir, config.logging
        prefix = quote(config.name, safe="")
        if logging is None:
            return _Sample(self._options.request_log_sampling_rate if folder else 0.0, os.path.join(folder, prefix))
        prefix = os.path.join(folder, logging.filename_prefix or prefix)
        if logging.sampling_rate and not folder and not os.path.isabs(prefix):
            raise invalid_argument(
                f"Model {config.name}: without --request_log_dir, filename_prefix in its logging_config has to be an "
                "absolute path"
            )
        return _Sample(logging.sampling_rate, prefix)


def _log(request: Any, response: Any, spec: Any, sampling_rate: float) -> Any:
    log = prediction_log_pb2.PredictionLog()
    log.log_metadata.model_spec.CopyFrom(spec)
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
