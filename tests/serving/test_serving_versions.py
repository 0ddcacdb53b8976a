"""Versions that come and go under a server that answers requests."""

import shutil
import threading
import time

import numpy as np
import pytest

from serving.models.session import load
from serving.options import Options
from serving.repository.config import ModelConfig, Specific
from serving.repository.repository import Repository

pytestmark = pytest.mark.xdist_group("serving")

PREDICT = "/v1/models/plus:predict"
POLL = 0.05  # seconds


@pytest.fixture(scope="module")
def plus_one(tmp_path_factory, save_plus):
    directory = tmp_path_factory.mktemp("plus_one") / "1"
    save_plus(directory, 1)
    return directory


@pytest.fixture(scope="module")
def plus_two(tmp_path_factory, save_plus):
    directory = tmp_path_factory.mktemp("plus_two") / "2"
    save_plus(directory, 2)
    return directory


@pytest.fixture
def base_path(tmp_path, plus_one):
    publish(plus_one, tmp_path, 1)
    return tmp_path


@pytest.fixture
def server(serve, base_path):
    with serve(base_path, "plus", file_system_poll_wait_seconds=POLL, max_num_load_retries=0) as running:
        yield running


@pytest.fixture
def rest(rest_client, server):
    with rest_client(server) as client:
        yield client


def publish(directory, base_path, version):
    shutil.copytree(directory, base_path / "being-written")
    (base_path / "being-written").rename(base_path / str(version))


def states(rest):
    listed = rest.get("/v1/models/plus").json()["model_version_status"]
    return {int(each["version"]): each["state"] for each in listed}


def status(rest, version):
    return rest.get(f"/v1/models/plus/versions/{version}").json()["model_version_status"][0]


def wait_until(reached):
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_states(rest, wanted):
    deadline = time.monotonic() + 20
    while states(rest) != wanted:
        assert time.monotonic() < deadline, f"{states(rest)} did not become {wanted}"
        time.sleep(0.01)


def test_new_version_takes_over_without_a_failed_request(rest, base_path, plus_two):
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(rest.post(PREDICT, json={"instances": [0]}).json())

    asker = threading.Thread(target=ask)
    asker.start()
    publish(plus_two, base_path, 2)
    wait_for_states(rest, {2: "AVAILABLE", 1: "END"})
    rest.post(PREDICT, json={"instances": [0]})
    stop.set()
    asker.join()
    values = [answer["predictions"][0] for answer in answers]
    assert set(values) == {1.0, 2.0}
    assert values == sorted(values)


def test_versions_are_listed_in_descending_order(rest, base_path, plus_two):
    publish(plus_two, base_path, 2)
    wait_for_states(rest, {2: "AVAILABLE", 1: "END"})
    assert list(states(rest)) == [2, 1]


def test_broken_version_leaves_the_old_one_serving(rest, base_path):
    (base_path / "2").mkdir()
    wait_for_states(rest, {2: "END", 1: "AVAILABLE"})
    broken = rest.get("/v1/models/plus/versions/2").json()["model_version_status"][0]
    assert broken["status"] == {
        "error_code": "NOT_FOUND",
        "error_message": "Could not find SavedModel .pb or .pbtxt at supplied export directory path: "
        "<model_base_path>/2. Check that the directory exists and that you have the right permissions for "
        "accessing it.",
    }
    assert rest.post(PREDICT, json={"instances": [0]}).json() == {"predictions": [1.0]}


def test_damaged_graph_leaves_the_old_one_serving(rest, base_path):
    (base_path / "writing").mkdir()
    (base_path / "writing" / "saved_model.pb").write_bytes(b"not a message")
    (base_path / "writing").rename(base_path / "2")
    wait_for_states(rest, {2: "END", 1: "AVAILABLE"})
    broken = rest.get("/v1/models/plus/versions/2").json()["model_version_status"][0]
    assert broken["status"]["error_code"] == "DATA_LOSS"
    assert rest.post(PREDICT, json={"instances": [0]}).json() == {"predictions": [1.0]}


def test_version_that_failed_is_tried_again_when_it_comes_back(rest, base_path, plus_two):
    (base_path / "2").mkdir()
    wait_for_states(rest, {2: "END", 1: "AVAILABLE"})
    (base_path / "2").rmdir()
    time.sleep(4 * POLL)
    publish(plus_two, base_path, 2)
    wait_for_states(rest, {2: "AVAILABLE", 1: "END"})


def test_half_copied_version_is_tried_again_until_it_is_whole(serve, rest_client, base_path, plus_two):
    options = {"file_system_poll_wait_seconds": POLL, "load_retry_interval_micros": 50_000, "max_num_load_retries": 400}
    with serve(base_path, "plus", **options) as server, rest_client(server) as rest:
        shutil.copytree(plus_two, base_path / "2", ignore=lambda folder, names: {"saved_model.pb"} & set(names))
        wait_for_states(rest, {2: "LOADING", 1: "AVAILABLE"})
        wait_until(lambda: status(rest, 2)["status"]["error_code"] == "NOT_FOUND")
        assert rest.post(PREDICT, json={"instances": [0]}).json() == {"predictions": [1.0]}
        shutil.copy(plus_two / "saved_model.pb", base_path / "2")
        wait_for_states(rest, {2: "AVAILABLE", 1: "END"})
        assert status(rest, 2)["status"] == {"error_code": "OK", "error_message": ""}


def test_version_that_stays_broken_is_given_up(serve, rest_client, base_path, caplog):
    options = {"file_system_poll_wait_seconds": POLL, "load_retry_interval_micros": 10_000, "max_num_load_retries": 2}
    with serve(base_path, "plus", **options) as server, rest_client(server) as rest:
        (base_path / "2").mkdir()
        wait_for_states(rest, {2: "END", 1: "AVAILABLE"})
        time.sleep(4 * POLL)
    attempts = [each for each in caplog.messages if each.startswith("Loading servable: {name: plus version: 2} failed")]
    assert len(attempts) == 3


@pytest.mark.slow
def test_version_that_is_taken_away_while_it_is_retried_is_forgotten(serve, rest_client, base_path):
    options = {"file_system_poll_wait_seconds": POLL, "max_num_load_retries": 5}
    with serve(base_path, "plus", **options) as server, rest_client(server) as rest:
        (base_path / "2").mkdir()
        wait_for_states(rest, {2: "LOADING", 1: "AVAILABLE"})
        (base_path / "2").rmdir()
        wait_for_states(rest, {2: "END", 1: "AVAILABLE"})


def test_rollback_to_the_version_before(rest, base_path, plus_two):
    publish(plus_two, base_path, 2)
    wait_for_states(rest, {2: "AVAILABLE", 1: "END"})
    shutil.rmtree(base_path / "2")
    wait_for_states(rest, {2: "END", 1: "AVAILABLE"})
    assert rest.post(PREDICT, json={"instances": [0]}).json() == {"predictions": [1.0]}


def test_emptied_directory_unloads_all(rest, base_path):
    shutil.rmtree(base_path / "1")
    wait_for_states(rest, {1: "END"})
    answer = rest.post(PREDICT, json={"instances": [0]})
    assert (answer.status_code, answer.json()) == (
        404,
        {"error": "Servable not found for request: Latest(plus)"},
    )


def test_base_path_that_goes_away_unloads_nothing(rest, base_path):
    base_path.rename(base_path.with_name("elsewhere"))
    time.sleep(4 * POLL)
    assert states(rest) == {1: "AVAILABLE"}


def test_names_that_are_no_numbers_are_ignored(rest, base_path, plus_two):
    for name in ("2.tmp", "-3", "v4", "\u0665"):
        shutil.copytree(plus_two, base_path / name)
    (base_path / "99").write_text("a file")
    time.sleep(4 * POLL)
    assert states(rest) == {1: "AVAILABLE"}


@pytest.mark.slow
def test_request_in_flight_keeps_its_version(serve, grpc_stubs, predict_request, tmp_path, zoo_path, plus_two):
    base_path = tmp_path / "zoo"
    base_path.mkdir()
    publish(zoo_path / "00000123", base_path, 1)
    with serve(base_path, file_system_poll_wait_seconds=POLL) as server, grpc_stubs(server) as stubs:
        slow = stubs.prediction.Predict.future(predict_request("slow", n=np.int64(600_000)))
        quick = stubs.prediction.Predict(predict_request(x=np.float32([0])))
        assert quick.model_spec.version.value == 1
        publish(plus_two, base_path, 2)
        while stubs.prediction.Predict(predict_request(x=np.float32([0]))).model_spec.version.value == 1:
            time.sleep(0.01)
        assert not slow.done(), "the run was too short to prove anything"
        answer = slow.result(timeout=60)
        assert list(answer.outputs["counted"].int64_val) == [600_000]
        assert answer.model_spec.version.value == 1


def test_polling_once_sees_no_later_version(serve, rest_client, base_path, plus_two):
    with serve(base_path, "plus", file_system_poll_wait_seconds=0) as server, rest_client(server) as rest:
        publish(plus_two, base_path, 2)
        time.sleep(4 * POLL)
        assert states(rest) == {1: "AVAILABLE"}


def test_polling_never_loads_nothing(serve, rest_client, base_path):
    with serve(base_path, "plus", file_system_poll_wait_seconds=-1) as server, rest_client(server) as rest:
        answer = rest.get("/v1/models/plus")
        assert (answer.status_code, answer.json()) == (
            404,
            {"error": "Could not find any versions of model plus"},
        )


def test_versions_that_are_missing_are_told_once(save_plus, tmp_path, caplog):
    (tmp_path / "without").mkdir()
    save_plus(tmp_path / "plus" / "1", 1)
    configs = [
        ModelConfig("without", tmp_path / "without"),
        ModelConfig("plus", tmp_path / "plus", Specific(frozenset([1, 7]))),
    ]
    repository = Repository(load, Options(file_system_poll_wait_seconds=POLL))
    repository.start([])
    repository.reload(configs, is_awaited=lambda: False)
    wait_until(lambda: repository.availability() == {"without": False, "plus": True})
    time.sleep(4 * POLL)
    assert repository.stop(timeout=20)
    assert caplog.messages == [
        f"No versions of servable without found under base path {tmp_path / 'without'}. Did you forget to name your "
        "leaf directory as a number (eg. '/1/')?",
        "Version 7 of servable plus, which was requested to be served as a 'specific' version in the servable's "
        "version policy, was not found in the file system",
    ]
