"""What a server tells those who probe it, from its start to its end, and what becomes of requests meanwhile."""

import contextlib
import ctypes
import socket
import threading
import time

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.background import dead
from serving.options import Options
from serving.server import Server

pytestmark = pytest.mark.xdist_group("serving")

PREDICT = "/v1/models/zoo:predict"


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited for 20 seconds"
        time.sleep(0.01)


def test_probes_of_a_server_that_serves(rest):
    assert (rest.get("/healthz").status_code, rest.get("/healthz").json()) == (200, {"alive": True})
    ready = {"ready": True, "phase": "serving", "models_without_a_version": []}
    assert (rest.get("/readyz").status_code, rest.get("/readyz").json()) == (200, ready)
    head = rest.head("/readyz")
    assert (head.status_code, head.content) == (200, b"")
    assert rest.post("/readyz").status_code == 404


def test_ready_only_while_every_model_has_a_version(serve, rest_client, save_plus, tmp_path):
    save_plus(tmp_path / "1", 1)
    with serve(tmp_path, "plus", file_system_poll_wait_seconds=0.05) as server, rest_client(server) as rest:
        assert rest.get("/readyz").status_code == 200
        (tmp_path / "1").rename(tmp_path / "gone")
        wait_until(lambda: rest.get("/readyz").status_code == 503)
        unready = {"ready": False, "phase": "serving", "models_without_a_version": ["plus"]}
        assert rest.get("/readyz").json() == unready
        assert rest.get("/healthz").status_code == 200
        (tmp_path / "gone").rename(tmp_path / "1")
        wait_until(lambda: rest.get("/readyz").status_code == 200)


def kill(name):
    """Raises SystemExit in the youngest thread of a name, wherever it is."""
    *_, thread = (each for each in threading.enumerate() if each.name == name)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)) == 1


@pytest.fixture
def busy_server(serve_config, zoo_path, tmp_path):
    """A server with all the threads that work in the background."""
    (tmp_path / "tokens").write_text('{"tokens": [{"token": "secret"}]}')
    (tmp_path / "models").write_text(
        f'model_config_list {{ config {{ name: "zoo" base_path: "{zoo_path}" model_platform: "tensorflow" }} }}'
    )
    (tmp_path / "batching").write_text(
        'num_batch_threads { value: 1 } thread_pool_name { value: "batch" } batch_timeout_micros { value: 1000 }'
    )
    files = {"access_log": "access.log", "auth_token_file": "tokens", "batching_parameters_file": "batching"}
    options = {name: str(tmp_path / file) for name, file in files.items()}
    with serve_config(
        tmp_path / "models",
        enable_batching=True,
        request_log_dir=str(tmp_path),
        model_config_file_poll_wait_seconds=0.05,
        rest_api_timeout_in_ms=300,
        **options,
    ) as server:
        yield server
    assert dead() == []


@pytest.mark.parametrize(
    "name",
    [
        "versions",
        "follow --model_config_file",
        "follow files that change",
        "write the access log",
        "write the request log",
        "batch_0",
    ],
)
def test_not_ready_once_a_thread_in_the_background_has_died(busy_server, rest_client, name):
    with rest_client(busy_server) as rest:
        assert rest.get("/readyz").status_code == 200
        kill(name)
        body, headers = {"instances": [1]}, {"Authorization": "Bearer secret"}
        rest.post(PREDICT, json=body, headers=headers)  # which wakes the thread of batches, and has no answer then
        wait_until(lambda: rest.get("/readyz").status_code == 503)
        assert rest.get("/readyz").json() == {"ready": False, "phase": "serving", "dead_threads": [name]}
        assert rest.get("/healthz").status_code == 200


@contextlib.contextmanager
def busy(server):
    """The one thread of the server's REST API has something else to do, as long as the context is open."""
    gate, started = threading.Event(), threading.Event()

    def hold():
        started.set()
        assert gate.wait(20)

    held = server.app.threads.submit(hold)
    assert started.wait(20)
    try:
        yield
    finally:
        gate.set()
        held.result(20)


def test_metrics_do_not_wait_for_threads(serve, rest_client, zoo_path):
    with serve(zoo_path, rest_api_num_threads=1) as server, busy(server), rest_client(server) as probing:
        assert probing.get("/metrics").status_code == 200


def test_probes_do_not_wait_for_threads(serve, rest_client, zoo_path):
    with serve(zoo_path, rest_api_num_threads=1) as server, busy(server), rest_client(server) as probing:
        assert [probing.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.slow
def test_many_probes_sent_at_once_are_answered(server):
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3000)
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 3000:
            received += connection.recv(2**20)


@pytest.fixture
def loading(tmp_path):
    """A server whose model has not come yet, and that answers REST nevertheless."""
    options = Options(
        model_name="plus",
        model_base_path=str(tmp_path),
        file_system_poll_wait_seconds=0.05,
        rest_api_opens_while_loading=True,
    )
    server = Server(options, pick_free_ports=True)
    starting = threading.Thread(target=server.start)
    starting.start()
    wait_until(lambda: server.rest_port)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.rest_port}", trust_env=False) as client:
        yield tmp_path, client
    starting.join()
    server.stop()


def test_rest_may_open_while_models_are_loaded(loading, save_plus):
    base_path, client = loading
    wait_until(lambda: client.get("/readyz").json()["models_without_a_version"])
    unready = {"ready": False, "phase": "loading", "models_without_a_version": ["plus"]}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, unready)
    assert client.get("/healthz").status_code == 200
    answer = client.post("/v1/models/plus:predict", json={"instances": [1]})
    assert (answer.status_code, answer.json()) == (503, {"error": "The models are still being loaded."})
    assert client.get("/v1/models/plus").status_code == 404, "no version has been seen"
    save_plus(base_path / "unfinished", 1)
    (base_path / "unfinished").rename(base_path / "1")
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert client.post("/v1/models/plus:predict", json={"instances": [1]}).json() == {"predictions": [2.0]}


@pytest.mark.slow
def test_readiness_goes_first_and_requests_are_still_answered(serve, rest_client, zoo_path):
    options = {"shutdown_delay_seconds": 1.0, "enable_grpc_healthcheck_service": True}
    with (
        serve(zoo_path, **options) as server,
        rest_client(server) as rest,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        wait_until(lambda: rest.get("/readyz").status_code == 503)
        assert rest.get("/readyz").json()["phase"] == "leaving"
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert rest.post(PREDICT, json={"instances": [1]}).json() == {"predictions": [2.5]}
        stopping.join()


def test_open_connections_are_refused_while_requests_end(serve, rest_client, zoo_path):
    one = {"rest_api_num_threads": 1}
    with serve(zoo_path, **one) as server, rest_client(server) as rest, rest_client(server) as other:
        assert other.get("/readyz").status_code == 200  # so that its connection is open
        answers = []
        asking = threading.Thread(target=lambda: answers.append(rest.post(PREDICT, json={"instances": [1]})))
        stopping = threading.Thread(target=server.stop)
        with busy(server):
            asking.start()
            wait_until(lambda: server.app.threads.num_queued == 1)
            stopping.start()
            wait_until(lambda: server._rest._socket.fileno() < 0)  # closed
            refused = other.post(PREDICT, json={"instances": [1]})
            assert (refused.status_code, refused.json()) == (503, {"error": "The server is shutting down."})
            assert refused.headers["connection"] == "close"
            with pytest.raises(httpx.ConnectError):
                other.get("/readyz")
        asking.join()
        stopping.join()
    assert answers[0].json() == {"predictions": [2.5]}
    assert answers[0].headers["connection"] == "close"


@pytest.mark.slow
def test_requests_that_do_not_end_have_the_time_of_grace(serve, grpc_stubs, predict_request, zoo_path):
    with serve(zoo_path, shutdown_grace_seconds=0.3) as server, grpc_stubs(server) as stubs:
        endless = stubs.prediction.Predict.future(predict_request("slow", n=np.int64(10**9)), timeout=2)
        time.sleep(0.2)
        started = time.monotonic()
        assert server.stop() is False
        assert 0.2 < time.monotonic() - started < 1.7
        assert endless.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def ask_over_rest(server, answers, ends):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.rest_port}", timeout=60, trust_env=False) as client:
        while True:
            try:
                answer = client.post(PREDICT, json={"instances": [1]})
            except httpx.ConnectError:
                return ends.append("refused")
            if answer.status_code != 200:
                return ends.append(f"{answer.status_code} {answer.headers['connection']} {answer.json()['error']}")
            answers.append(answer.json()["predictions"])


def ask_over_grpc(server, request, answers, ends):
    own = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=own) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        while True:
            try:
                answers.append(list(stub.Predict(request, timeout=60).outputs["y"].float_val))
            except grpc.RpcError as error:
                return ends.append(error.code().name)


@pytest.mark.slow
def test_end_under_load_drops_no_request(serve, predict_request, zoo_path):
    answers, rest_ends, grpc_ends = [], [], []
    with serve(zoo_path) as server:
        request = predict_request(x=np.float32([1]))
        streams = [threading.Thread(target=ask_over_rest, args=(server, answers, rest_ends)) for _ in range(16)]
        streams += [
            threading.Thread(target=ask_over_grpc, args=(server, request, answers, grpc_ends)) for _ in range(16)
        ]
        for stream in streams:
            stream.start()
        wait_until(lambda: len(answers) > 500)
        assert server.stop() is True
        for stream in streams:
            stream.join()
        counted = server.service.metrics.total("/tensorflow/serving/request_count")
    assert set(rest_ends) <= {"503 close The server is shutting down.", "refused"}
    assert set(grpc_ends) == {"UNAVAILABLE"}, grpc_ends
    assert all(answer == [2.5] for answer in answers)
    assert len(answers) == counted, "what the server ran and what clients got are not the same"
