"""Replays the requests that an export carries before its version becomes available."""

import logging
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.errors import Code, ServingError, invalid_argument
from serving.models.inference import CLASSIFY, REGRESS, find_task, find_tasks, infer
from serving.models.model import Model
from serving.wire import messages

logger = logging.getLogger("serving")

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MOST_RECORDS = 1000
_METHODS = {"classify_log": CLASSIFY, "regress_log": REGRESS}


def warm_up(model: Model, directory: Path, num_iterations: int) -> int:
    """Replays the warm-up requests of a version, each for a number of times. Returns the number of requests.

    Raises ServingError if a request can't be read or fails; the version must not be served then.
    """
    path, count = directory / WARMUP_FILE, 0
    for count, log in enumerate(read_logs(path), start=1):
        if count > MOST_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {path}")
        for _ in range(num_iterations):
            _replay(model, log)
    logger.info("Finished reading warmup data for model at %s. Number of warmup records read: %d.", path, count)
    return count


def read_logs(path: Path) -> Iterator[PredictionLog]:
    """The requests in a file of records. Raises ServingError where it, or one of them, cannot be read."""
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield _parse(record, path)
    except tf.errors.DataLossError as error:
        # Eager TensorFlow puts "{{function_node ...}} " before and " [Op:...]" after the text of the reader.
        reason = error.message.rpartition("}} ")[2].partition(" [Op:")[0]
        raise ServingError(
            Code.DATA_LOSS, f"{reason}. Please verify your warmup data is in TFRecord format."
        ) from error


def _parse(record: bytes, path: Path) -> PredictionLog:
    try:
        return PredictionLog.FromString(record)
    except DecodeError as error:
        text = record.decode("utf-8", "replace")
        raise invalid_argument(f"Failed to parse warmup record: {text} from {path}") from error


def _replay(model: Model, log: PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        message = log.predict_log.request
        request = messages.decode_predict(message, model.signatures, message.model_spec.signature_name)
        model.run(request.signature_name, request.inputs, request.output_names)
    elif kind in _METHODS:
        request = getattr(log, kind).request
        task = find_task(model, _METHODS[kind], request.model_spec.signature_name)
        infer(model, [task], messages.decode_examples(request.input))
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        tasks = find_tasks(model, messages.decode_tasks(request))
        infer(model, tasks, messages.decode_examples(request.input))
    else:
        number = log.DESCRIPTOR.fields_by_name[kind].number if kind else 0
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
