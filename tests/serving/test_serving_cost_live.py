"""Nobody waits long beside a hostile client: small requests to a server that reads the worst bodies known."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import httpx
import numpy as np
import pytest

from benchmarks.serving_hostile import REST_HEADERS, WORST
from benchmarks.serving_processes import serving

pytestmark = pytest.mark.xdist_group("serving-cost")

LONGEST_WAIT = 1.0  # seconds
TIMEOUT = 60.0
TRIES = 3  # where the machine itself makes somebody wait
SERVICE = "/tensorflow.serving.PredictionService/"
METHODS = {"PredictRequest": SERVICE + "Predict", "ClassificationRequest": SERVICE + "Classify"}


@pytest.fixture(scope="module")
def running(zoo_path):
    with serving(SimpleNamespace(base_path=zoo_path)) as server:
        yield server


class Bystander:
    """Asks again and again, and notes how long each answer takes."""

    def __init__(self, ask):
        self._ask = ask
        self._answered = threading.Condition()
        self._waits = []
        self._since = 0.0
        self._is_over = False

    def run(self):
        while not self._is_over:
            self._since = time.monotonic()
            self._ask()
            with self._answered:
                self._waits.append(time.monotonic() - self._since)
                self._answered.notify_all()

    def restart(self):
        with self._answered:
            self._waits.clear()

    def longest_wait(self):
        """Of all answers since the restart, and one more."""
        with self._answered:
            number = len(self._waits)
            assert self._answered.wait_for(lambda: len(self._waits) > number, TIMEOUT)
            return max(self._waits)

    def stop(self):
        self._is_over = True


@pytest.fixture(scope="module")
def bystanders(running, predict_request):
    message = predict_request(model="m", x=np.float32([1])).SerializeToString()
    with (
        httpx.Client(timeout=TIMEOUT, trust_env=False) as rest,
        grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel,
        ThreadPoolExecutor(2) as threads,
    ):
        call = channel.unary_unary(METHODS["PredictRequest"])

        def ask_rest():
            assert rest.post(running.predict_url, json={"instances": [1]}).json() == {"predictions": [2.5]}

        asking = [Bystander(ask_rest), Bystander(lambda: call(message, timeout=TIMEOUT))]
        tasks = [threads.submit(each.run) for each in asking]
        for each in asking:
            each.longest_wait()  # a first answer is there
        yield asking
        for each in asking:
            each.stop()
        for task in tasks:
            task.result(TIMEOUT)


def send_rest(running, decoder, data):
    action = "classify" if decoder in ("JSON of examples", "ClassificationRequest") else "predict"
    url = running.predict_url.replace(":predict", f":{action}")
    return httpx.post(url, content=data, headers=REST_HEADERS[decoder], timeout=TIMEOUT, trust_env=False).status_code


def send_header(running, data):
    headers = {"Accept": data[:60_000], "Accept-Encoding": b"gzip"}
    answer = httpx.post(running.predict_url, content=b"{}", headers=headers, timeout=TIMEOUT, trust_env=False)
    return answer.status_code


def send_bytes(running, data):
    """The status of the first answer to bytes that are no single request."""
    with socket.create_connection(("127.0.0.1", running.rest), timeout=TIMEOUT) as client:
        with contextlib.suppress(ConnectionError):  # it need not read all
            client.sendall(data)
        return int(client.recv(65536).split()[1])


def send_grpc(running, method, data):
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
        try:
            channel.unary_unary(method)(data, timeout=TIMEOUT)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def senders(running, decoder, data):
    if decoder in ("requests", "requests in pieces"):
        return [lambda: send_bytes(running, data)]
    if decoder == "headers":
        return [lambda: send_header(running, data)]
    if decoder == "address":
        return [lambda: send_bytes(running, b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % data)]
    over_rest = [lambda: send_rest(running, decoder, data)]
    return over_rest + [lambda: send_grpc(running, METHODS[decoder], data)] * (decoder in METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORST)
def test_small_requests_do_not_wait_for_the_worst_bodies_known(running, bystanders, name):
    for send in senders(running, *WORST[name]):
        waits = []
        for _ in range(TRIES):
            for each in bystanders:
                each.restart()
            with ThreadPoolExecutor(4) as threads:
                statuses = {task.result() for task in [threads.submit(send) for _ in range(4)]}
            assert statuses <= {200, 400, 404, 431, grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
            waits.append(max(each.longest_wait() for each in bystanders))
            if waits[-1] < LONGEST_WAIT:
                break
        assert min(waits) < LONGEST_WAIT
