"""What the client costs above what it stands on: a bare gRPC stub, and http.client. Calls take turns.

python -m benchmarks.serving_client [--calls 2000]
"""

import argparse
import http.client
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.layer import machine
from benchmarks.serving_models import Sample, save_perceptron, save_photos
from benchmarks.serving_processes import Running, serving
from serving.client import Client
from serving.request import ModelSpec

BAR = 50e-6  # seconds of CPU time above the stub with a message that is ready
_MODEL = "m"
_WARM_UP = 50  # calls
_LONGEST = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Call = Callable[[], Any]


def main() -> int:
    """Measures, prints, and returns 0 where the bar holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_client", description=__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="of each candidate")
    calls = parser.parse_args().calls
    print(f"{machine()}; load average {os.getloadavg()[0]:.1f}; medians of {calls} calls in turns, in us")
    with tempfile.TemporaryDirectory() as folder:
        perceptron = save_perceptron(Path(folder, "perceptron"))
        holds = measure("784 floats", perceptron, calls)
        photo, _ = save_photos(Path(folder, "photos"))
        measure("224x224x3 floats", photo, max(1, calls // 10))
    return 0 if holds else 1


def measure(name: str, sample: Sample, calls: int) -> bool:
    """Prints what each candidate took. Returns whether the client holds the bar over gRPC."""
    with (
        serving(sample) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc}", _LONGEST) as channel,
        Client(f"grpc://127.0.0.1:{server.grpc}", _MODEL) as over_grpc,
        Client(f"http://127.0.0.1:{server.rest}", _MODEL) as over_rest,
    ):
        inputs = {sample.input_name: sample.batch}
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        candidates = {
            "stub, its message made before and its reply unread": ready_stub(stub, inputs),
            "stub with make_tensor_proto and make_ndarray": written_stub(stub, inputs),
            "Client over gRPC": lambda: over_grpc.predict(inputs),
            "http.client, its body made before and its reply unread": ready_http(server, over_rest, inputs),
            "Client over REST": lambda: over_rest.predict(inputs),
        }
        took = interleaved(candidates, calls)
    print(f"\n{name:<56}{'wall':>8}{'CPU':>8}")
    for candidate, (wall, cpu) in took.items():
        print(f"{candidate:<56}{wall * 1e6:8.0f}{cpu * 1e6:8.0f}")
    (bare_wall, bare_cpu), (wall, cpu) = (took[each] for each in (next(iter(candidates)), "Client over gRPC"))
    print(f"above the bare stub: {(wall - bare_wall) * 1e6:.0f} us wall, {(cpu - bare_cpu) * 1e6:.0f} us CPU")
    return cpu - bare_cpu < BAR


def ready_stub(stub: Any, inputs: Mapping[str, np.ndarray]) -> Call:
    """The least that a call can cost."""
    message = request(inputs)
    return lambda: stub.Predict(message, timeout=60)


def written_stub(stub: Any, inputs: Mapping[str, np.ndarray]) -> Call:
    """A call as TensorFlow Serving's guides write it."""

    def call() -> dict[str, np.ndarray]:
        reply = stub.Predict(request(inputs), timeout=60)
        return {name: tf.make_ndarray(proto) for name, proto in reply.outputs.items()}

    return call


def request(inputs: Mapping[str, np.ndarray]) -> predict_pb2.PredictRequest:
    """TensorFlow's own message."""
    message = predict_pb2.PredictRequest(model_spec={"name": _MODEL})
    for name, array in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return message


def ready_http(server: Running, client: Client, inputs: Mapping[str, np.ndarray]) -> Call:
    """The least that a POST can cost, of the same body."""
    wire = client._transport.wire
    signature = client.metadata()["serving_default"]
    path, body = wire.predict(ModelSpec(_MODEL), inputs, (), signature).request
    connection = http.client.HTTPConnection("127.0.0.1", server.rest)

    def call() -> bytes:
        connection.request("POST", f"/{path}", body)
        return connection.getresponse().read()

    return call


def interleaved(candidates: Mapping[str, Call], calls: int) -> dict[str, tuple[float, float]]:
    """The median wall and CPU seconds of each candidate's calls."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    order, shuffled = list(candidates.items()), random.Random(0)
    for number in range(calls + _WARM_UP):
        shuffled.shuffle(order)  # a call pays for what the one before it left behind
        for name, call in order:
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            took = time.perf_counter() - wall, time.process_time() - cpu
            if number >= _WARM_UP:
                times[name].append(took)
    return {name: tuple(map(statistics.median, zip(*each, strict=True))) for name, each in times.items()}  # type: ignore[misc]


if __name__ == "__main__":
    raise SystemExit(main())
