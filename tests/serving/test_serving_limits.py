"""What a server takes at most: bytes, connections, requests that wait."""

import contextlib
import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest

from serving.admission.threads import RequestThreads

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 20.0  # seconds that nothing here should take


def wait_until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def narrow(serve, zoo_path):
    """A server with one thread and one place to wait for each transport."""
    threads = {"rest_api_num_threads": 1, "grpc_max_threads": 1}
    sizes = {"rest_api_max_body_bytes": 1000, "grpc_max_message_bytes": 1000}
    with serve(zoo_path, max_queued_requests=1, rest_api_enable_cors_support=True, **threads, **sizes) as server:
        yield server


def ask_rest(server):
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/zoo:predict"
    return httpx.post(url, json={"instances": [1]}, timeout=WAIT, trust_env=False)


def test_compressed_body_inflates_to_no_more_than_a_body_may_have(narrow):
    url = f"http://127.0.0.1:{narrow.rest_port}/v1/models/zoo:predict"
    body = gzip.compress(b'{"instances": [1]}'.ljust(1001))
    answer = httpx.post(url, content=body, headers={"Content-Encoding": "gzip"}, timeout=WAIT, trust_env=False)
    assert (answer.status_code, answer.json()["error"]) == (400, "Request body inflates to more than 1000 bytes.")


def test_rest_refuses_where_too_many_wait(narrow, rest_client, busy):
    with ThreadPoolExecutor(1) as others, rest_client(narrow) as rest:
        with busy(narrow.app.threads):
            waiting = others.submit(ask_rest, narrow)
            wait_until(lambda: narrow.app.threads.num_queued == 1)
            answer = rest.post("/v1/models/zoo:predict", json={"instances": [1]})
            assert rest.get("/healthz").status_code == 200
        assert waiting.result(WAIT).status_code == 200
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json() == {"error": "1 requests wait already. Try again later."}
        assert answer.headers["access-control-allow-origin"] == "*"
        assert rest.post("/v1/models/zoo:predict", json={"instances": [1]}).status_code == 200


def test_grpc_refuses_where_too_many_wait(narrow, grpc_stubs, predict_request, status_of, busy):
    request, threads = predict_request(x=np.float32([1])), narrow._grpc.threads
    with grpc_stubs(narrow) as stubs:
        with busy(threads):
            waiting = stubs.prediction.Predict.future(request, timeout=WAIT)
            wait_until(lambda: threads.num_queued == 1)
            refused = ("RESOURCE_EXHAUSTED", "1 requests wait already. Try again later.")
            assert status_of(stubs.prediction.Predict, request, timeout=WAIT) == refused
        assert list(waiting.result(WAIT).outputs["y"].float_val) == [2.5]
        assert list(stubs.prediction.Predict(request, timeout=WAIT).outputs["y"].float_val) == [2.5]


def test_bodies_and_messages_too_large_are_refused(narrow, rest_client, grpc_stubs, predict_request, status_of):
    with rest_client(narrow) as rest:
        answer = rest.post("/v1/models/zoo:predict", content=b" " * 1001)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (413, "*")
    with grpc_stubs(narrow) as stubs:
        large = predict_request(x=np.zeros(1000, np.float32))
        assert status_of(stubs.prediction.Predict, large, timeout=WAIT)[0] == "RESOURCE_EXHAUSTED"


def test_request_that_has_waited_for_too_long_is_not_run(serve, grpc_stubs, predict_request, status_of, zoo_path, busy):
    one = {"rest_api_num_threads": 1, "grpc_max_threads": 1, "max_queue_time_in_ms": 50}
    message = "The request waited for more than 50 ms. Try again later."
    with serve(zoo_path, **one) as server, grpc_stubs(server) as stubs, ThreadPoolExecutor(1) as others:
        pools = server.app.threads, server._grpc.threads
        with busy(pools[0]), busy(pools[1]):
            over_rest = others.submit(ask_rest, server)
            over_grpc = stubs.prediction.Predict.future(predict_request(x=np.float32([1])), timeout=WAIT)
            wait_until(lambda: [pool.num_queued for pool in pools] == [1, 1])
            time.sleep(0.06)
        answer = over_rest.result(WAIT)
        assert (answer.status_code, answer.json()) == (503, {"error": message})
        assert answer.headers["retry-after"] == "1"
        assert status_of(over_grpc.result) == ("UNAVAILABLE", message)


@pytest.mark.slow
def test_connections_have_a_limit(serve, rest_client, zoo_path):
    with serve(zoo_path, rest_api_max_connections=3, rest_api_max_connections_per_address=2) as server:
        address = ("127.0.0.1", server.rest_port)

        def connect(source):
            return socket.create_connection(address, timeout=WAIT, source_address=(source, 0))

        def is_open(client):
            client.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                return not client.recv(1000).startswith(b"HTTP/1.1 503")
            return True

        first = [connect("127.0.0.1"), connect("127.0.0.1")]
        assert all(map(is_open, first))
        third = connect("127.0.0.1")
        assert b"The server has too many connections." in b"".join(iter(lambda: third.recv(1000), b""))
        other, last = connect("127.0.0.2"), connect("127.0.0.3")
        assert (is_open(other), is_open(last)) == (True, False)
        for client in [*first, third, other, last]:
            client.close()
        wait_until(lambda: not server._rest.server_state.connections)
        with rest_client(server) as rest:
            assert rest.get("/v1/models/zoo").status_code == 200


@pytest.mark.slow
def test_grpc_connections_have_a_limit(serve, grpc_stubs, predict_request, zoo_path):
    request, own = predict_request(x=np.float32([1])), [("grpc.use_local_subchannel_pool", 1)]
    with serve(zoo_path, grpc_max_connections=1) as server, grpc_stubs(server) as first:
        first.prediction.Predict(request, timeout=WAIT)
        address = f"127.0.0.1:{server.grpc_port}"
        with grpc.insecure_channel(address, own) as channel, pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(0.5)
        first.prediction.Predict(request, timeout=WAIT)


def test_messages_have_a_limit_together(serve, grpc_stubs, predict_request, zoo_path, status_of, monkeypatch, busy):
    monkeypatch.setattr("serving.rpc.interceptor._MAX_BYTES", 10_000)
    with serve(zoo_path, grpc_max_threads=1) as server, grpc_stubs(server) as stubs:
        predict = stubs.prediction.Predict
        with busy(server._grpc.threads):
            held = predict.future(predict_request(x=np.zeros(2000, np.float32)), timeout=WAIT)
            wait_until(lambda: server._grpc.threads.num_queued == 1)
            refused = ("RESOURCE_EXHAUSTED", "The server holds too many messages. Try again later.")
            assert status_of(predict, predict_request(x=np.zeros(1000, np.float32)), timeout=WAIT) == refused
            small = predict.future(predict_request(x=np.float32([1])), timeout=WAIT)
        assert len(held.result(WAIT).outputs["y"].float_val) == 2000
        assert list(small.result(WAIT).outputs["y"].float_val) == [2.5]
        with busy(server._grpc.threads):
            cancelled = predict.future(predict_request(x=np.zeros(2000, np.float32)), timeout=WAIT)
            wait_until(lambda: server._grpc.threads.num_queued == 1)
            cancelled.cancel()  # its message is there until a thread comes to it
            assert status_of(predict, predict_request(x=np.zeros(1000, np.float32)), timeout=WAIT) == refused
        alone = predict(predict_request(x=np.zeros(5000, np.float32)), timeout=WAIT)  # as large as gRPC allows
        assert len(alone.outputs["y"].float_val) == 5000


def test_pool_counts_what_waits():
    gate, started = threading.Event(), threading.Event()

    def hold():
        started.set()
        assert gate.wait(WAIT)

    with RequestThreads(1, "test") as threads:
        threads.submit(hold)
        assert started.wait(WAIT)
        assert threads.num_queued == 0
        waiting = [threads.submit(lambda: None) for _ in range(3)]
        assert threads.num_queued == 3
        gate.set()
        for each in waiting:
            each.result(WAIT)
        assert threads.num_queued == 0
    with pytest.raises(RuntimeError):
        threads.submit(hold)
    assert threads.num_queued == 0
