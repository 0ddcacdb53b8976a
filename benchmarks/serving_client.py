"""Measures the clients against the libraries under them: gRPC's stubs, and httpx with a body made before.

python -m benchmarks.serving_client [--calls 2000]

The candidates of a table take turns call by call, each over its own connection.
"""

import argparse
import asyncio
import contextlib
import http.client
import inspect
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import orjson
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.layer import machine
from benchmarks.serving_models import Sample, save_perceptron, save_photos
from benchmarks.serving_processes import Running, serving
from serving.client import AsyncClient, Client

TARGET = 50e-6  # seconds of CPU time above a stub, sync or async, with a message made before
_MODEL = "m"
_WARM_UP = 50  # calls
_LONGEST = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_JSON = {"content-type": "application/json", "accept-encoding": "identity"}

Call = Callable[[], Any]


class Setting:
    """A server, a request to it, an event loop, and the stack that closes everything after the calls."""

    def __init__(self, sample: Sample, server: Running, runner: asyncio.Runner, stack: contextlib.ExitStack) -> None:
        self.inputs = {sample.input_name: sample.batch}
        self.server = server
        self.stack = stack
        self.run = runner.run
        self.grpc_address = f"127.0.0.1:{server.grpc}"
        self.rest_url = f"http://127.0.0.1:{server.rest}"


def main() -> int:
    """Measures, prints, and returns 0 if the target is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_client", description=__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="of each candidate")
    calls = parser.parse_args().calls
    print(f"{machine()}; load average {os.getloadavg()[0]:.1f}; medians of {calls} calls in turns, in us")
    with tempfile.TemporaryDirectory() as folder:
        perceptron = save_perceptron(Path(folder, "perceptron"))
        above = measure("784 floats", perceptron, calls)
        photo, _ = save_photos(Path(folder, "photos"))
        measure("224x224x3 floats", photo, max(1, calls // 10))
    return 0 if max(above[:2]) < TARGET else 1


def measure(name: str, sample: Sample, calls: int) -> list[float]:
    """Prints the time of each candidate. Returns how many CPU seconds each client takes above the first candidate."""
    above = []
    for group in (over_grpc, over_grpc_async, over_rest, over_rest_async):
        with serving(sample) as server, asyncio.Runner() as runner, contextlib.ExitStack() as stack:
            took = runner.run(interleaved(group(Setting(sample, server, runner, stack)), calls))
        _, base = next(iter(took.values()))
        print(f"\n{name:<56}{'wall':>8}{'CPU':>8}{'above':>8}")
        for candidate, (wall, cpu) in took.items():
            print(f"{candidate:<56}{wall * 1e6:8.0f}{cpu * 1e6:8.0f}{(cpu - base) * 1e6:8.0f}")
        above.append(cpu - base)
    return above


def over_grpc(setting: Setting) -> Mapping[str, Call]:
    """The client last, after stubs that do the same without it."""
    channels = [setting.stack.enter_context(grpc.insecure_channel(setting.grpc_address, _LONGEST)) for _ in range(2)]
    ready, written = map(prediction_service_pb2_grpc.PredictionServiceStub, channels)
    client = setting.stack.enter_context(Client(f"grpc://{setting.grpc_address}", _MODEL))
    message = request(setting.inputs)

    def write_and_read() -> dict[str, np.ndarray]:
        reply = written.Predict(request(setting.inputs), timeout=60)
        return {name: tf.make_ndarray(proto) for name, proto in reply.outputs.items()}

    return {
        "stub, its message made before and its reply unread": lambda: ready.Predict(message, timeout=60),
        "stub with make_tensor_proto and make_ndarray": write_and_read,
        "Client over gRPC": lambda: client.predict(setting.inputs),
    }


def over_grpc_async(setting: Setting) -> Mapping[str, Call]:
    """The same in asyncio."""
    message = request(setting.inputs)

    async def open_channel() -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(setting.grpc_address, _LONGEST)

    channel, client = setting.run(open_channel()), AsyncClient(f"grpc://{setting.grpc_address}", _MODEL)
    setting.stack.callback(lambda: setting.run(channel.close()))
    setting.stack.callback(lambda: setting.run(client.close()))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    return {
        "stub of grpc.aio, its message made before": lambda: stub.Predict(message, timeout=60),
        "AsyncClient over gRPC": lambda: client.predict(setting.inputs),
    }


def over_rest(setting: Setting) -> Mapping[str, Call]:
    """The client last, after posts of the same body, whose answers are not read."""
    client = setting.stack.enter_context(Client(setting.rest_url, _MODEL))
    posting = setting.stack.enter_context(httpx.Client())
    connection = http.client.HTTPConnection("127.0.0.1", setting.server.rest)
    path, body = json_request(setting)

    def post() -> bytes:
        connection.request("POST", path, body)
        return connection.getresponse().read()

    return {
        "httpx, its body made before": lambda: posting.post(
            setting.rest_url + path, content=body, headers=_JSON, timeout=60
        ),
        "http.client, its body made before": post,
        "Client over REST": lambda: client.predict(setting.inputs),
    }


def over_rest_async(setting: Setting) -> Mapping[str, Call]:
    """The same in asyncio."""
    posting, client = httpx.AsyncClient(), AsyncClient(setting.rest_url, _MODEL)
    setting.stack.callback(lambda: setting.run(posting.aclose()))
    setting.stack.callback(lambda: setting.run(client.close()))
    path, body = json_request(setting)
    url = setting.rest_url + path
    return {
        "httpx.AsyncClient, its body made before": lambda: posting.post(url, content=body, headers=_JSON, timeout=60),
        "AsyncClient over REST": lambda: client.predict(setting.inputs),
    }


def request(inputs: Mapping[str, np.ndarray]) -> predict_pb2.PredictRequest:
    """TensorFlow's own message."""
    message = predict_pb2.PredictRequest(model_spec={"name": _MODEL})
    for name, array in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return message


def json_request(setting: Setting) -> tuple[str, bytes]:
    """The path and the body of the request that the client sends."""
    document = {"signature_name": "serving_default", "inputs": setting.inputs}
    return f"/v1/models/{_MODEL}:predict", orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


async def interleaved(candidates: Mapping[str, Call], calls: int) -> dict[str, tuple[float, float]]:
    """The median wall and CPU seconds of each candidate's calls, which are awaited where they can be."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    order, shuffled = list(candidates.items()), random.Random(0)
    for number in range(calls + _WARM_UP):
        shuffled.shuffle(order)  # a call pays for what the one before it left behind
        for name, call in order:
            wall, cpu = time.perf_counter(), time.process_time()
            answer = call()
            if inspect.isawaitable(answer):
                await answer
            took = time.perf_counter() - wall, time.process_time() - cpu
            if number >= _WARM_UP:
                times[name].append(took)
    return {name: tuple(map(statistics.median, zip(*each, strict=True))) for name, each in times.items()}  # type: ignore[misc]


if __name__ == "__main__":
    raise SystemExit(main())
