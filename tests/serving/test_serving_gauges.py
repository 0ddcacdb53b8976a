"""The gauges of /metrics: requests, threads, batches and versions as they are at that moment."""

import contextlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 20.0  # seconds that nothing here should take
GAUGES = {
    "batching_session_batch_fill_ratio",
    "model_loaded_bytes",
    "model_version_state",
    "requests_in_flight",
    "requests_waiting",
    "threads",
    "threads_busy",
    "threads_busy_ratio",
}


def wait_until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def read(rest, name):
    """The values of a gauge by its labels."""
    page = rest.get("/metrics").text
    samples = [sample for family in parse(page) for sample in family.samples]
    return {tuple(each.labels.values()): each.value for each in samples if each.name == f"tensorflow_serving_{name}"}


@pytest.fixture(scope="module")
def gate_path(tmp_path_factory):
    """A model that reads a file: with a named pipe it is busy until somebody opens the other end."""
    base_path, module = tmp_path_factory.mktemp("gate"), tf.Module()
    path = tf.TensorSpec([], tf.string, name="path")
    module.read = tf.function(lambda path: {"content": tf.io.read_file(path)}, input_signature=[path])
    tf.saved_model.save(module, str(base_path / "7"), module.read)
    return base_path


@contextlib.contextmanager
def asked(server, transport, number, grpc_stubs, predict_request, status_of, rest_client, pipe):
    """Requests that are in the server as long as the context is open, and are answered, with an error, after it."""
    os.mkfifo(pipe)
    with grpc_stubs(server) as stubs, rest_client(server) as rest, ThreadPoolExecutor(number) as clients:

        def ask():
            if transport == "REST":
                return rest.post("/v1/models/gate:predict", json={"inputs": str(pipe)}).text
            return status_of(stubs.prediction.Predict, predict_request(model="gate", path=str(pipe)), timeout=WAIT)[1]

        asking = [clients.submit(ask) for _ in range(number)]
        try:
            yield
        finally:
            while not all(each.done() for each in asking):  # each run opens the pipe for itself
                with contextlib.suppress(OSError):  # nobody has it open
                    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                time.sleep(0.01)
        for each in asking:
            assert "pipe; Illegal seek" in each.result()


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["REST", "GRPC"])
def test_request_is_in_flight_until_it_is_answered(
    serve, gate_path, transport, rest_client, grpc_stubs, predict_request, status_of, tmp_path
):
    with serve(gate_path, "gate") as server, rest_client(server) as rest:
        assert read(rest, "requests_in_flight") == {("gate", "7"): 0}
        with asked(server, transport, 1, grpc_stubs, predict_request, status_of, rest_client, tmp_path / "pipe"):
            wait_until(lambda: read(rest, "requests_in_flight") == {("gate", "7"): 1})
        wait_until(lambda: read(rest, "requests_in_flight") == {("gate", "7"): 0})


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["REST", "GRPC"])
def test_requests_wait_where_all_threads_are_busy(
    serve, gate_path, transport, rest_client, grpc_stubs, predict_request, status_of, tmp_path
):
    pools = {"rest_api_num_threads": 1, "grpc_max_threads": 1}
    with serve(gate_path, "gate", **pools) as server, rest_client(server) as rest:
        idle = {("REST",): 0, ("GRPC",): 0}
        assert read(rest, "threads") == {("REST",): 1, ("GRPC",): 1}
        assert read(rest, "threads_busy") == idle, "to read the metrics keeps a thread from requests"
        with asked(server, transport, 3, grpc_stubs, predict_request, status_of, rest_client, tmp_path / "pipe"):
            wait_until(lambda: read(rest, "requests_waiting") == idle | {(transport,): 2})
            assert read(rest, "threads_busy") == read(rest, "threads_busy_ratio") == idle | {(transport,): 1}
            wait_until(lambda: read(rest, "requests_in_flight") == {("gate", "7"): 1})
        wait_until(lambda: read(rest, "threads_busy") == read(rest, "requests_waiting") == idle)


def states(rest):
    """The states by version; fails where a version is not in exactly one."""
    values = read(rest, "model_version_state")
    for version in {version for _, _, version in values}:
        assert sorted(value for (_, _, each), value in values.items() if each == version) == [0, 0, 0, 0, 1]
    return {version: state for (_, state, version), value in values.items() if value}


def test_version_that_is_unloaded_leaves_no_series(serve, rest_client, save_plus, tmp_path):
    save_plus(tmp_path / "1", 1)
    with serve(tmp_path, "plus", file_system_poll_wait_seconds=0.05) as server, rest_client(server) as rest:
        assert states(rest) == {"1": "AVAILABLE"}
        save_plus(tmp_path / "next", 2)
        (tmp_path / "next").rename(tmp_path / "2")
        wait_until(lambda: states(rest) == {"2": "AVAILABLE"})
        assert read(rest, "requests_in_flight").keys() == read(rest, "model_loaded_bytes").keys() == {("plus", "2")}
        for version in ("1", "2"):
            shutil.rmtree(tmp_path / version)
        wait_until(lambda: not states(rest))
        assert read(rest, "requests_in_flight") == read(rest, "model_loaded_bytes") == {}


def test_version_that_fails_to_load_is_shown_until_it_is_taken_away(serve, rest_client, save_plus, tmp_path):
    save_plus(tmp_path / "1", 1)
    with serve(tmp_path, "plus", file_system_poll_wait_seconds=0.05) as server, rest_client(server) as rest:
        (tmp_path / "2").mkdir()
        wait_until(lambda: states(rest) == {"1": "AVAILABLE", "2": "END"})
        assert read(rest, "requests_in_flight").keys() == {("plus", "1")}
        (tmp_path / "2").rmdir()
        wait_until(lambda: states(rest) == {"1": "AVAILABLE"})


@pytest.mark.slow
def test_loaded_bytes_are_those_of_graph_and_variables(serve, rest_client, counting_path, tmp_path):
    shutil.copytree(counting_path / "1", tmp_path / "1")
    (tmp_path / "1" / "model.onnx").write_bytes(bytes(100_000))
    files = [tmp_path / "1" / "saved_model.pb", *(tmp_path / "1" / "variables").iterdir()]
    assert len(files) == 3
    with serve(tmp_path, "counting") as server, rest_client(server) as rest:
        assert read(rest, "model_loaded_bytes") == {("counting", "1"): sum(file.stat().st_size for file in files)}


@pytest.mark.slow
def test_batch_fill_is_that_of_the_last_batch(serve, rest_client, grpc_stubs, predict_request, zoo_path, tmp_path):
    (tmp_path / "batching").write_text("max_batch_size { value: 4 } allowed_batch_sizes: 2 allowed_batch_sizes: 4")
    batching = {"enable_batching": True, "batching_parameters_file": str(tmp_path / "batching")}
    with serve(zoo_path, **batching) as server, rest_client(server) as rest, grpc_stubs(server) as stubs:
        assert read(rest, "batching_session_batch_fill_ratio") == {}, "no batch has run"
        for rows, fill in ((3, 0.75), (1, 0.25)):
            stubs.prediction.Predict(predict_request(x=np.zeros(rows, np.float32)), timeout=WAIT)
            assert read(rest, "batching_session_batch_fill_ratio") == {("zoo", "123"): fill}


def test_gauges_are_valid_openmetrics(rest):
    page = rest.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).text
    families = {family.name: family for family in parse_openmetrics(page)}
    gauges = {name for name, family in families.items() if family.type == "gauge" and name.startswith("tensorflow_")}
    assert gauges == {f"tensorflow_serving_{name}" for name in GAUGES}
