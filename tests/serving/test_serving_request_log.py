"""The request log: what a record holds, on both transports; files, their rotation and their loss; reloads."""

import itertools
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from serving.call import Call
from serving.errors import ServingError
from serving.options import Options
from serving.telemetry import request_log
from serving.telemetry.metrics import Metrics
from serving.telemetry.request_log import RecordFiles, RequestLog
from serving.wire.tensor_proto import read_tensor

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 20.0  # seconds that nothing here should take
ALL = {"request_log_sampling_rate": 1}
FOR_EVER = Options(request_log_max_file_bytes=2**40, request_log_max_file_seconds=10**9)
SPEC = {"name": "zoo", "signature_name": "serving_default", "version": {"value": 123}}


def records(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def read(path):
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records(path)]


@pytest.fixture(scope="module")
def logged(serve, zoo_path, tmp_path_factory):
    """A server that logs all requests, and what was logged since the last look."""
    folder, seen = tmp_path_factory.mktemp("requests"), itertools.count()
    with serve(zoo_path, request_log_dir=str(folder), **ALL) as server:
        yield server, lambda: next_log(folder, next(seen))


def next_log(folder, position):
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        (part,) = folder.iterdir() if any(folder.iterdir()) else [None]
        if part is not None and len(read(part)) > position:
            return read(part)[position]
        time.sleep(0.02)
    raise AssertionError("nothing was logged")


@pytest.fixture(scope="module")
def rest(logged, rest_client):
    with rest_client(logged[0]) as client:
        yield client


@pytest.fixture(scope="module")
def stubs(logged, grpc_stubs):
    with grpc_stubs(logged[0]) as both:
        yield both


def check_metadata(log, spec):
    assert log.log_metadata.model_spec == model_pb2.ModelSpec(**spec)
    assert log.log_metadata.sampling_config.sampling_rate == 1
    assert abs(log.log_metadata.timestamp_secs - time.time()) < WAIT


def test_predict_over_grpc_is_logged_as_it_came(logged, stubs, predict_request):
    request = predict_request("", x=np.float32([1, 2, 3]))
    request.output_filter.append("y")
    request.client_id = b"shop"
    response = stubs.prediction.Predict(request, timeout=WAIT)
    log = logged[1]()
    assert log.predict_log.request == request
    assert log.predict_log.response == response
    check_metadata(log, SPEC)


def example_input(example, *values):
    message = classification_pb2.ClassificationRequest()
    message.input.example_list.examples.extend(example(x=value) for value in values)
    return message.input


@pytest.mark.slow
def test_examples_over_grpc_are_logged_as_they_came(logged, stubs, example):
    given = example_input(example, 0.25, 0.5)
    classify = classification_pb2.ClassificationRequest(
        model_spec={"name": "zoo", "signature_name": "classify"}, input=given
    )
    response = stubs.prediction.Classify(classify, timeout=WAIT)
    assert logged[1]().classify_log == prediction_log_pb2.ClassifyLog(request=classify, response=response)
    regress = regression_pb2.RegressionRequest(model_spec={"name": "zoo", "signature_name": "regress"}, input=given)
    response = stubs.prediction.Regress(regress, timeout=WAIT)
    assert logged[1]().regress_log == prediction_log_pb2.RegressLog(request=regress, response=response)
    both = inference_pb2.MultiInferenceRequest(input=given)
    for name in ("classify", "regress"):
        both.tasks.add(model_spec={"name": "zoo", "signature_name": name}, method_name=f"tensorflow/serving/{name}")
    response = stubs.prediction.MultiInference(both, timeout=WAIT)
    log = logged[1]()
    assert log.multi_inference_log == prediction_log_pb2.MultiInferenceLog(request=both, response=response)
    check_metadata(log, {**SPEC, "signature_name": "classify"})


def test_predict_over_rest_is_logged_as_grpc_would_have_sent_it(logged, rest, stubs):
    body = {"signature_name": "pick", "instances": [{"a": 1, "b": True}, {"a": -5, "b": False}]}
    assert rest.post("/v1/models/zoo/versions/123:predict", json=body).json() == {"predictions": [1, 5]}
    log = logged[1]().predict_log
    assert log.request.model_spec == model_pb2.ModelSpec(**SPEC | {"signature_name": "pick"})
    arrays = {name: read_tensor(tensor) for name, tensor in log.request.inputs.items()}
    assert arrays.keys() == {"a", "b"}
    assert (arrays["a"].dtype, arrays["a"].tolist()) == (np.int64, [1, -5])
    assert (arrays["b"].dtype, arrays["b"].tolist()) == (np.bool_, [True, False])
    assert stubs.prediction.Predict(log.request, timeout=WAIT) == log.response
    logged[1]()


def test_bytes_over_rest_are_logged(logged, rest):
    body = {"signature_name": "strings", "inputs": [{"b64": "AP8="}, "text"]}
    assert rest.post("/v1/models/zoo:predict", json=body).status_code == 200
    request = logged[1]().predict_log.request
    assert list(request.inputs["s"].string_val) == [b"\0\xff", b"text"]
    assert not request.model_spec.HasField("version")


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_examples_over_rest_are_logged_as_grpc_would_have_sent_them(logged, rest, example, method):
    body = {"signature_name": method, "examples": [{"x": 0.25}, {"x": 0.5}]}
    assert rest.post(f"/v1/models/zoo:{method}", json=body).status_code == 200
    log = getattr(logged[1](), f"{method}_log")
    assert log.request.input == example_input(example, 0.25, 0.5)
    assert log.request.model_spec == model_pb2.ModelSpec(name="zoo", signature_name=method)
    assert log.response.model_spec.version.value == 123


def test_requests_that_fail_are_not_logged(logged, rest, stubs, predict_request, status_of):
    secret = {"Authorization": "Bearer secret-of-a-client"}
    assert rest.post("/v1/models/zoo:predict", json={"instances": ["a"]}).status_code == 400
    body = {"signature_name": "uneven_outputs", "instances": [1, 2]}  # runs, and cannot be written as JSON
    assert rest.post("/v1/models/zoo:predict", json=body).status_code == 400
    assert status_of(stubs.prediction.Predict, predict_request("none"), timeout=WAIT)[0] == "FAILED_PRECONDITION"
    assert rest.post("/v1/models/zoo:predict", json={"instances": [7]}, headers=secret).status_code == 200
    log = logged[1]()  # the next one is the one that succeeded
    assert read_tensor(log.predict_log.request.inputs["x"]).tolist() == [7]
    assert b"secret" not in log.SerializeToString()


def test_log_serves_as_warm_up_requests(serve, zoo_path, rest_client, grpc_stubs, predict_request, tmp_path):
    folder, model = tmp_path / "log", tmp_path / "model"
    with serve(zoo_path, request_log_dir=str(folder), **ALL) as server:
        with rest_client(server) as rest:
            rest.post("/v1/models/zoo:predict", json={"instances": [1, 2]})
        with grpc_stubs(server) as stubs:
            stubs.prediction.Predict(predict_request("slow", n=np.int64(3)), timeout=WAIT)
    (log,) = folder.iterdir()  # whole, as the server has ended
    assert log.suffix == ".tfrecord"
    assert log.stat().st_mode & 0o777 == 0o640
    shutil.copytree(zoo_path / "00000123", model / "1")
    (model / "1" / "assets.extra").mkdir()
    shutil.copy(log, model / "1" / "assets.extra" / "tf_serving_warmup_requests")
    with serve(model) as server:
        assert server.service.metrics.total("/tensorflow/serving/model_warmup_records_read") == 2


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_sampling_rate_is_kept(serve_config, zoo_path, rest_client, tmp_path, rate):
    path, requests = tmp_path / "models.config", 400
    path.write_text(config_text(zoo_path, tmp_path / "zoo", rate))
    with serve_config(path) as server, rest_client(server) as rest:
        for _ in range(requests):
            rest.post("/v1/models/zoo:predict", json={"instances": [1]})
    kept = sum(len(read(file)) for file in tmp_path.glob("zoo-*.tfrecord"))
    deviation = (requests * rate * (1 - rate)) ** 0.5
    assert abs(kept - requests * rate) <= 6 * deviation  # missed by chance once in 10^9
    assert server.service.metrics.total("/tensorflow/serving/request_log_count") == kept


def config_text(base_path, prefix, rate):
    logging = f'log_collector_config {{ filename_prefix: "{prefix}" }} sampling_config {{ sampling_rate: {rate} }}'
    model = f'name: "zoo" base_path: "{base_path}" model_platform: "tensorflow" logging_config {{ {logging} }}'
    return f"model_config_list {{ config {{ {model} }} }}"


@pytest.mark.slow
def test_reload_changes_what_is_logged(serve_config, zoo_path, rest_client, tmp_path, caplog):
    path, folders = tmp_path / "models.config", [tmp_path / "log", tmp_path / "other", tmp_path / "none"]
    path.write_text(config_text(zoo_path, "flowers", 1))
    with (
        serve_config(path, request_log_dir=str(folders[0]), model_config_file_poll_wait_seconds=0.02) as server,
        rest_client(server) as rest,
    ):

        def ask(number):
            rest.post("/v1/models/zoo:predict", json={"instances": [number]})

        def reload(prefix, rate):
            (tmp_path / "writing").write_text(config_text(zoo_path, prefix, rate))
            (tmp_path / "writing").rename(path)

        def wait_until(reached):
            end = time.monotonic() + WAIT
            while not reached():
                assert time.monotonic() < end
                time.sleep(0.01)

        ask(0)
        reload("/proc/none/zoo", 1)
        wait_until(lambda: "Model zoo: no request log in /proc/none: " in caplog.text)
        ask(1)
        reload(folders[1] / "zoo", 1)
        wait_until(lambda: any(folders[0].glob("*.tfrecord")))
        ask(2)
        reload(folders[2] / "zoo", 0)
        wait_until(lambda: any(folders[1].glob("*.tfrecord")))
        ask(3)
    logged = {
        str(file.relative_to(tmp_path)).partition("-")[0]: [
            read_tensor(log.predict_log.request.inputs["x"]).tolist() for log in read(file)
        ]
        for file in tmp_path.glob("*/*.tfrecord")
    }
    assert logged == {"log/flowers": [[0], [1]], "other/zoo": [[2]]}


def test_client_cannot_say_where_the_log_is_written(serve_config, zoo_path, grpc_stubs, status_of, tmp_path):
    path, folder = tmp_path / "models.config", tmp_path / "chosen-by-the-client"
    path.write_text(config_text(zoo_path, tmp_path / "zoo", 1))
    request = model_management_pb2.ReloadConfigRequest()
    with serve_config(path) as server, grpc_stubs(server) as stubs:
        for rate in (0, 1):
            text_format.Parse(f"config {{ {config_text(zoo_path, folder / 'zoo', rate)} }}", request)
            assert status_of(stubs.model.HandleReloadConfigRequest, request, timeout=WAIT) == (
                "INVALID_ARGUMENT",
                "Model zoo: logging_config, which names files to write, is taken from --model_config_file alone",
            )
            request.Clear()
    assert not folder.exists()


def test_relative_prefix_needs_a_directory(serve_config, zoo_path, tmp_path):
    path = tmp_path / "models.config"
    path.write_text(config_text(zoo_path, "zoo", 1))
    with pytest.raises(ServingError, match=r"zoo: without --request_log_dir, filename_prefix .* absolute path$"):
        serve_config(path).__enter__()


def test_directory_that_cannot_be_made_is_told_at_the_start(serve, zoo_path):
    with pytest.raises(ServingError, match=r"Model zoo: no request log in /proc/none: No such file or directory$"):
        serve(zoo_path, request_log_dir="/proc/none").__enter__()


def test_files_are_rotated_by_size_and_the_oldest_go(tmp_path):
    files = RecordFiles(
        str(tmp_path / "m"), replace(FOR_EVER, request_log_max_file_bytes=2 * (16 + 1), request_log_max_files=2)
    )
    for number in range(9):
        files.write(b"%d" % number)
    *whole, part = sorted(tmp_path.iterdir())
    assert [records(file) for file in whole] == [[b"4", b"5"], [b"6", b"7"]]
    assert [file.suffix for file in whole] == [".tfrecord"] * 2
    assert (part.suffix, records(part)) == (".part", [b"8"])
    files.end()
    assert sum(map(len, map(records, tmp_path.iterdir()))) == 3


def test_files_of_other_models_and_of_users_stay(tmp_path):
    kept = [tmp_path / name for name in ("m-20261123T000000.000000Z-1.tfrecord", "m2-20261123T000000.000000Z.tfrecord")]
    left_by_a_kill = tmp_path / "m-20261123T000000.000000Z.tfrecord.part"
    for path in (*kept, left_by_a_kill):
        path.touch()
    files = RecordFiles(str(tmp_path / "m"), replace(FOR_EVER, request_log_max_file_bytes=1, request_log_max_files=1))
    files.write(b"a")
    assert set(kept) < set(tmp_path.iterdir())
    assert not left_by_a_kill.exists()


def test_file_that_is_old_gets_its_name(tmp_path):
    files = RecordFiles(str(tmp_path / "m"), replace(FOR_EVER, request_log_max_file_seconds=0.05))
    files.write(b"a")
    files.end_if_old()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    time.sleep(0.05)
    files.end_if_old()
    assert [path.suffix for path in tmp_path.iterdir()] == [".tfrecord"]


def test_disk_that_is_full_loses_no_record_that_was_written(tmp_path, monkeypatch):
    files = RecordFiles(str(tmp_path / "m"), FOR_EVER)
    files.write(b"a")
    monkeypatch.setattr(files, "_writer", tf.io.TFRecordWriter("/dev/full"))
    with (tmp_path / next(tmp_path.iterdir()).name).open("ab") as part:
        part.write(b"half a record")
    with pytest.raises(OSError, match="No space left on device"):
        files.write(b"b")
    (whole,) = tmp_path.iterdir()
    assert (whole.suffix, records(whole)) == (".tfrecord", [b"a"])
    files.write(b"c")
    files.end()
    assert sorted(itertools.chain.from_iterable(map(records, tmp_path.iterdir()))) == [b"a", b"c"]


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def log(tmp_path, metrics):
    options = replace(FOR_EVER, request_log_dir=str(tmp_path / "log"), request_log_sampling_rate=1)
    log = RequestLog(options, metrics)
    yield log
    log.stop()


def add(log, request, model="m"):
    log.add(
        Call(model=model, version="1"), predict_pb2.PredictRequest(client_id=request), predict_pb2.PredictResponse()
    )


def counts(metrics):
    """The number of records by how they ended."""
    families = metrics.registry.restricted_registry(["tensorflow_serving_request_log_count_total"]).collect()
    return {sample.labels["status_code"]: sample.value for family in families for sample in family.samples}


def wait_for_counts(metrics, expected):
    end = time.monotonic() + WAIT
    while counts(metrics) != expected:
        assert time.monotonic() < end, counts(metrics)
        time.sleep(0.02)


def client_ids(folder):
    return sorted(log.predict_log.request.client_id for file in folder.iterdir() for log in read(file))


def test_what_comes_sooner_than_it_is_written_is_dropped_and_counted(log, metrics, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(request_log, "_MOST_WAITING", 300)
    monkeypatch.setattr(request_log, "_PAUSE", 1e9)
    log = RequestLog(log._options, metrics)
    log.configure({"m": None})
    for number in range(5):
        add(log, b"%d" % number + b"x" * 60)
    add(log, b"x" * 301)
    dropped = counts(metrics)["RESOURCE_EXHAUSTED"]
    assert 3 <= dropped < 5
    assert len(caplog.records) == 1
    log.stop()
    assert client_ids(tmp_path / "log") == [b"%d" % number + b"x" * 60 for number in range(6 - int(dropped))]
    assert counts(metrics) == {"OK": 6 - dropped, "RESOURCE_EXHAUSTED": dropped}


def test_what_the_disk_does_not_take_is_counted_and_logged_once(log, metrics, tmp_path, caplog):
    log.configure({"m": None})
    (tmp_path / "log").rmdir()
    (tmp_path / "log").touch()
    for _ in range(3):
        add(log, b"a")
    wait_for_counts(metrics, {"UNAVAILABLE": 3})
    log.stop()
    (logged,) = caplog.records
    assert logged.getMessage().startswith("Could not write the request log: ")


def test_record_that_fails_holds_up_no_other(log, metrics, tmp_path, monkeypatch, caplog):
    log.configure({"bad": None, "m": None})
    monkeypatch.setitem(log._files, str(tmp_path / "log" / "bad"), RecordFiles("/no\0path/bad", log._options))
    add(log, b"a", "bad")
    add(log, b"b")
    wait_for_counts(metrics, {"UNAVAILABLE": 1, "OK": 1})
    add(log, b"c")
    log.stop()
    assert counts(metrics) == {"UNAVAILABLE": 1, "OK": 2}
    assert client_ids(tmp_path / "log") == [b"b", b"c"]
    assert caplog.messages == ["Could not write the request log: embedded null byte"]
