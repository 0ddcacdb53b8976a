"""Warm-up requests that an export carries."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.errors import ServingError

pytestmark = pytest.mark.xdist_group("serving")


@pytest.fixture
def base_path(tmp_path, zoo_path):
    shutil.copytree(zoo_path / "00000123", tmp_path / "1")
    (tmp_path / "1" / "assets.extra").mkdir()
    return tmp_path


@pytest.fixture
def write_log(base_path):
    def write(*records):
        path = base_path / "1" / "assets.extra" / "tf_serving_warmup_requests"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record if isinstance(record, bytes) else record.SerializeToString())
        return path

    return write


@pytest.fixture
def predict_log(predict_request):
    def make(*arguments, **inputs):
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.CopyFrom(predict_request(*arguments, **inputs))
        return log

    return make


def add_example(request):
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(1)


def classify_log(signature):
    log = prediction_log_pb2.PredictionLog()
    log.classify_log.request.model_spec.signature_name = signature
    add_example(log.classify_log.request)
    return log


def regress_log(signature):
    log = prediction_log_pb2.PredictionLog()
    log.regress_log.request.model_spec.signature_name = signature
    add_example(log.regress_log.request)
    return log


def multi_inference_log(*methods):
    log = prediction_log_pb2.PredictionLog()
    for method in methods:
        spec = {"name": "zoo", "signature_name": method}
        log.multi_inference_log.request.tasks.add(method_name=f"tensorflow/serving/{method}", model_spec=spec)
    add_example(log.multi_inference_log.request)
    return log


def failure(serve, base_path):
    with pytest.raises(ServingError) as caught, serve(base_path):
        pass
    assert caught.value.code.name == "UNKNOWN"
    head, tail = "1 servable(s) did not become available: {{{name: zoo version: 1} due to error: ", "}, }"
    assert caught.value.message.startswith(head)
    assert caught.value.message.endswith(tail)
    return caught.value.message[len(head) : -len(tail)]


def test_warm_up_runs_before_the_version_serves(serve, base_path, write_log, predict_log):
    write_log(
        predict_log(x=np.float32([1])),
        classify_log("classify"),
        regress_log("regress"),
        multi_inference_log("classify", "regress"),
        predict_log("slow", n=np.int64(3)),
    )
    with serve(base_path, num_request_iterations_for_warmup=2) as server:
        assert server.rest_port


NAMED_PICK = {"name": "zoo", "signature_name": "pick"}
FAILING = {
    "predict": (
        lambda predict_log: predict_log("pairs", x=np.float32([1])),
        "INVALID_ARGUMENT",
        "Input to reshape is a tensor with 1 values, but the requested shape requires a multiple of 2\n"
        "\t [[{{node Reshape}}]]",
    ),
    "predict-signature": (
        lambda predict_log: predict_log("s", x=np.float32([1])),
        "FAILED_PRECONDITION",
        'Serving signature key "s" not found.',
    ),
    "classify": (
        lambda predict_log: classify_log("s"),
        "INVALID_ARGUMENT",
        "No signature was found with the name: s",
    ),
    "regress": (
        lambda predict_log: prediction_log_pb2.PredictionLog(regress_log={"request": {"model_spec": NAMED_PICK}}),
        "INVALID_ARGUMENT",
        "Expected one input Tensor.",
    ),
    "multi-inference": (
        lambda predict_log: prediction_log_pb2.PredictionLog(multi_inference_log={"request": {"tasks": [{}]}}),
        "INVALID_ARGUMENT",
        "Found ModelSpec with an empty model name.",
    ),
    "session-run": (
        lambda predict_log: prediction_log_pb2.PredictionLog(session_run_log={}),
        "UNIMPLEMENTED",
        "Unsupported log_type for warmup: 5",
    ),
    "no-log-type": (
        lambda predict_log: prediction_log_pb2.PredictionLog(),
        "UNIMPLEMENTED",
        "Unsupported log_type for warmup: 0",
    ),
    "no-message": (
        lambda predict_log: b"\xff",
        "INVALID_ARGUMENT",
        "Failed to parse warmup record: \ufffd from <model_base_path>/1/assets.extra/tf_serving_warmup_requests",
    ),
}


@pytest.mark.parametrize(("make_log", "code", "message"), FAILING.values(), ids=FAILING)
def test_failing_request_fails_the_load(serve, base_path, write_log, predict_log, make_log, code, message):
    write_log(predict_log(x=np.float32([1])), make_log(predict_log))
    assert failure(serve, base_path) == f"{code}: {message}"


def test_file_that_holds_no_records_fails_the_load(serve, base_path, write_log):
    write_log().write_bytes(b"these are not records, but long enough")
    assert failure(serve, base_path) == (
        "DATA_LOSS: corrupted record at 0 (Is this even a TFRecord file?). "
        "Please verify your warmup data is in TFRecord format."
    )


@pytest.mark.slow
def test_more_than_a_thousand_records_fail_the_load(serve, base_path, write_log, predict_log):
    write_log(*[predict_log(x=np.float32([1]))] * 1001)
    assert failure(serve, base_path) == (
        "INVALID_ARGUMENT: Number of warmup records exceeds the maximum (1000) at "
        "<model_base_path>/1/assets.extra/tf_serving_warmup_requests"
    )


def test_warm_up_can_be_turned_off(serve, base_path, write_log):
    write_log(prediction_log_pb2.PredictionLog())
    with serve(base_path, enable_model_warmup=False) as server:
        assert server.rest_port
