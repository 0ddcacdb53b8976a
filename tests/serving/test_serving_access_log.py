"""The access log: its lines on both transports, names of requests, rotation."""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorflow_serving.apis import get_model_status_pb2

from serving.call import Call
from serving.errors import ServingError
from serving.telemetry.access_log import AccessLog, request_id

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 20.0  # seconds that nothing here should take


@pytest.fixture(scope="module")
def logged(serve, zoo_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    (folder / "tokens").write_text('{"tokens": [{"name": "shop", "token": "secret-for-zoo", "models": ["zoo"]}]}')
    path = folder / "access.log"
    with serve(zoo_path, access_log=str(path), auth_token_file=str(folder / "tokens")) as server:
        yield server, path


def wait_for_line(path, name):
    """The line of the request of this name."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        for line in path.read_text().splitlines() if path.exists() else []:
            found = json.loads(line)
            if found["request_id"] == name:
                return found
        time.sleep(0.02)
    raise AssertionError(f"there is no line of {name}")


def times_of(line):
    times = {name: line.pop(name) for name in ("time", "queue_ms", "run_ms", "ms")}
    assert time.time() - 60 < time.mktime(time.strptime(times["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert times["time"].endswith("Z")
    assert 0 <= times["run_ms"] <= times["ms"]
    assert 0 <= times["queue_ms"] < 1000
    return times


@pytest.fixture(scope="module")
def rest(logged, rest_client):
    with rest_client(logged[0]) as client:
        client.headers["Authorization"] = "Bearer secret-for-zoo"
        yield client


def test_rest_request_is_logged(logged, rest):
    answer = rest.post("/v1/models/zoo:predict", json={"instances": [1]}, headers={"X-Request-Id": "of-rest"})
    assert answer.headers["x-request-id"] == "of-rest"
    line = wait_for_line(logged[1], "of-rest")
    assert times_of(line)["run_ms"] > 0
    assert line == {
        "request_id": "of-rest",
        "transport": "REST",
        "client": "127.0.0.1",
        "method": "POST",
        "route": "/v1/models/zoo:predict",
        "token": "shop",
        "model": "zoo",
        "version": "123",
        "signature": "serving_default",
        "status": 200,
        "bytes": len(answer.content),
    }


def test_grpc_request_is_logged(logged, grpc_stubs, predict_request):
    metadata = [("authorization", "Bearer secret-for-zoo"), ("x-request-id", "of-grpc")]
    with grpc_stubs(logged[0]) as stubs:
        request = predict_request("two_outputs", x=np.float32([1]))
        response, call = stubs.prediction.Predict.with_call(request, metadata=metadata, timeout=WAIT)
    assert ("x-request-id", "of-grpc") in call.trailing_metadata()
    line = wait_for_line(logged[1], "of-grpc")
    assert times_of(line)["run_ms"] > 0
    assert line == {
        "request_id": "of-grpc",
        "transport": "GRPC",
        "client": "127.0.0.1",
        "method": "Predict",
        "route": "/tensorflow.serving.PredictionService/Predict",
        "token": "shop",
        "model": "zoo",
        "version": "123",
        "signature": "two_outputs",
        "status": "OK",
        "bytes": response.ByteSize(),
    }


REST = {
    "no-token": ("GET", "/v1/models/zoo", {"Authorization": ""}, 401),
    "other-model": ("GET", "/v1/models/other", {}, 403),
    "wrong-body": ("POST", "/v1/models/zoo:predict", {}, 400),
    "probe": ("GET", "/healthz", {}, 200),
}


@pytest.mark.parametrize(("method", "route", "headers", "status"), REST.values(), ids=REST)
def test_what_is_refused_is_logged(logged, rest, request, method, route, headers, status):
    name = request.node.callspec.id
    assert rest.request(method, route, headers={"X-Request-Id": name, **headers}).status_code == status
    line = wait_for_line(logged[1], name)
    assert (line["status"], line["method"], line["route"], line.get("version")) == (status, method, route, None)


def test_what_is_no_whole_request_is_logged_with_the_reason(logged):
    path = "/v1/models/zoo:predict"
    text = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: flood\r\nA: {'b' * 70_000}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", logged[0].rest_port), timeout=WAIT) as client:
        client.sendall(text.encode())
        answer = client.recv(10_000)
    assert b"x-request-id: flood\r\n" in answer
    line = wait_for_line(logged[1], "flood")
    times_of(line)
    assert line == {
        "request_id": "flood",
        "transport": "REST",
        "client": "127.0.0.1",
        "method": "POST",
        "route": path,
        "model": "zoo",
        "status": 431,
        "bytes": len(answer.partition(b"\r\n\r\n")[2]),
        "reason": "The headers are too large.",
    }


@pytest.mark.parametrize(("token", "code"), [("", "UNAUTHENTICATED"), ("secret-for-zoo", "NOT_FOUND")])
def test_calls_that_fail_are_logged(logged, grpc_stubs, status_of, token, code):
    metadata = [("authorization", f"Bearer {token}"), ("x-request-id", f"call-{code}")]
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "zoo", "version": {"value": 7}})
    with grpc_stubs(logged[0]) as stubs:
        assert status_of(stubs.model.GetModelStatus, request, metadata=metadata, timeout=WAIT)[0] == code
    line = wait_for_line(logged[1], f"call-{code}")
    assert (line["status"], line["method"], line["bytes"]) == (code, "GetModelStatus", 0)


def test_no_secret_is_logged(logged, rest):
    rest.get("/v1/models/zoo?token=secret-for-zoo", headers={"X-Request-Id": "secret"})
    wait_for_line(logged[1], "secret")
    assert "secret-for" not in logged[1].read_text()


@pytest.mark.parametrize("given", ["", "a b", "a\r\nSet-Cookie: b", '{"a"', "x" * 129, "ä"])
def test_name_that_is_not_safe_is_replaced(given):
    made = request_id(given)
    assert len(made) == 32
    assert made != request_id(given)


def test_name_of_the_client_is_kept():
    given = "6b2f:Root=1-67891233-abcdef012345678912345678;Self=1/2@+,~_."
    assert request_id(given) == given


def call(name, model="m"):
    return Call(request_id=name, method="GET", path="/", model=model)


@pytest.fixture
def log(tmp_path):
    log = AccessLog(str(tmp_path / "access.log"))
    log.start()
    yield log
    log.stop()


def test_line_is_exactly(log, tmp_path):
    now = time.perf_counter()
    known = {"arrived": now - 0.25, "started": now - 0.125, "run_started": now - 0.1, "run_ended": now - 0.0875}
    log.add(Call(request_id="a", method="GET", path="/", model="m", **known), 200, 1)
    log.stop()
    line = (tmp_path / "access.log").read_text()
    fields = json.loads(line)
    assert line == (
        f'{{"time":"{fields["time"]}","request_id":"a","transport":"REST","method":"GET","route":"/","model":"m",'
        f'"status":200,"bytes":1,"queue_ms":125.0,"run_ms":12.5,"ms":{fields["ms"]}}}\n'
    )
    assert 125 <= times_of(fields)["ms"] < 1000


def test_run_that_failed_took_no_time(log, tmp_path):
    log.add(Call(run_started=time.perf_counter()), "INTERNAL", 0)
    log.stop()
    assert json.loads((tmp_path / "access.log").read_text())["run_ms"] == 0


@pytest.mark.parametrize(("model", "written"), [('a\n"b', 'a\n"b'), ("\ud800", "\ud800"), ("x" * 1000, "x" * 256)])
def test_what_clients_make_up_breaks_no_line(log, tmp_path, model, written):
    log.add(call("a", model), 200, 1)
    log.stop()
    (line,) = (tmp_path / "access.log").read_text().splitlines()
    assert json.loads(line)["model"] == written


def test_file_that_was_moved_away_is_begun_anew(tmp_path):
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(path))
    log.start()
    for number in range(100):
        log.add(call(f"before-{number}"), 200, 1)
    wait_for_line(path, "before-99")
    path.rename(rotated)
    log.add(call("after"), 200, 1)
    wait_for_line(path, "after")
    log.add(call("last"), 200, 1)
    log.stop()
    names = [json.loads(line)["request_id"] for file in (rotated, path) for line in file.read_text().splitlines()]
    assert names == [*(f"before-{number}" for number in range(100)), "after", "last"]


def test_what_cannot_be_written_is_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.telemetry.access_log._MOST_WAITING", 10)
    log = AccessLog(str(tmp_path / "access.log"))
    for number in range(13):
        log.add(call(f"{number}"), 200, 1)
    log.start()
    log.stop()
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert (len(lines), lines[-1]) == (11, {"dropped": 3})


def wait_for_message(caplog, begin):
    end = time.monotonic() + WAIT
    while not any(message.startswith(begin) for message in caplog.messages):
        assert time.monotonic() < end, f"{begin} is not among {caplog.messages}"
        time.sleep(0.02)


def test_folder_that_goes_and_comes_back_costs_no_line_and_no_other_file(tmp_path, caplog):
    folder, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    folder.mkdir()
    log = AccessLog(str(folder / "access.log"))
    log.start()
    folder.rename(elsewhere)
    log.add(call("away"), 200, 1)
    wait_for_message(caplog, "Could not write the access log: ")
    others = [os.dup(0) for _ in range(20)]  # a descriptor that the log has closed is now one of these
    elsewhere.rename(folder)
    log.add(call("back"), 200, 1)
    wait_for_line(folder / "access.log", "back")
    assert [os.get_inheritable(each) for each in others] == [False] * 20  # raises where one is closed
    for each in others:
        os.close(each)
    log.stop()
    lines = (folder / "access.log").read_text().splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["away", "back"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


FULL_DISK = """
import logging, resource, sys
from serving.call import Call
from serving.telemetry.access_log import AccessLog

logging.basicConfig(format="%(message)s")
log = AccessLog(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (600, -1))  # a write beyond it is cut, and the next one fails
for name in "abcdefghij":
    log.add(Call(request_id=name, method="GET", path="/", model="m"), 200, 1)
log.start()
if sys.stdin.readline():
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    log.add(Call(request_id="later", method="GET", path="/", model="m"), 200, 1)
log.stop()
"""


@pytest.mark.parametrize("has_room_later", [True, False], ids=["room-later", "full-to-the-end"])
def test_lines_that_a_full_disk_does_not_take_wait(tmp_path, has_room_later):
    path = tmp_path / "access.log"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "Could not write the access log: [Errno 27] File too large\n"
        _, logged = process.communicate("go on\n" if has_room_later else "", timeout=WAIT)
    taken, rest = path.read_text()[:600], path.read_text()[600:]
    *whole, torn = taken.splitlines()
    names = [json.loads(line)["request_id"] for line in whole]
    assert names == list("abcdefghij")[: len(whole)]
    assert torn
    if has_room_later:
        end_of_torn, *later = rest.splitlines()
        assert end_of_torn == ""
        assert [json.loads(line)["request_id"] for line in later] == [*"abcdefghij"[len(whole) :], "later"]
        assert logged == ""
    else:
        assert (rest, logged) == ("", f"The access log has lost {10 - len(whole)} lines\n")


def test_line_that_is_torn_is_whole_in_the_next_file(tmp_path):
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stderr.readline()
        path.rename(rotated)
        process.communicate("go on\n", timeout=WAIT)
    names = [json.loads(line)["request_id"] for line in rotated.read_text().splitlines()[:-1]]
    names += [json.loads(line)["request_id"] for line in path.read_text().splitlines()]
    assert names == [*"abcdefghij", "later"]


def test_standard_output(capfd):
    log = AccessLog("-")
    log.start()
    log.add(call("a"), 200, 1)
    log.stop()
    assert json.loads(capfd.readouterr().out)["request_id"] == "a"


def test_file_that_cannot_be_opened_is_told_at_the_start(serve, zoo_path):
    with pytest.raises(ServingError, match="--access_log=/nowhere/log: No such file or directory"):
        serve(zoo_path, access_log="/nowhere/log").__enter__()
