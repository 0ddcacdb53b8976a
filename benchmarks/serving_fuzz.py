"""Damaged and hostile requests of every kind, read by a connection and answered by a real model in this process.

    python -m benchmarks.serving_fuzz [--inputs 100000] [--seed 0]

Each request begins as one that is right, and is then cut, joined, repeated and changed in places, or has a body of
`serving_hostile`; one in ten arrives as it was. There must be no exception in the connection, and no status that says
that the server itself failed. As many hostile inputs go to one decoder each, and may cost what their length allows; the
costliest are printed.
"""

import argparse
import asyncio
import base64
import gc
import gzip
import io
import json
import logging
import random
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf
from backports import zstd
from tensorflow_serving.apis import classification_pb2, predict_pb2

from benchmarks.serving_hostile import DECODERS, Cost, exchange, hostile, measured
from benchmarks.serving_models import Sample, save_network
from serving.options import Options
from serving.rest.app import RestApp
from serving.rest.content import JSON, NPY, NPZ, PROTOBUF
from serving.server import Server

MODEL = "m"
WARM_UP = 0.1  # of the inputs, before memory is looked at
SHORTEST_COMPARED = 256  # bytes; the costs of shorter inputs are those of any
HOSTILE = {  # the decoder for each kind of body
    "JSON in rows": "JSON",
    "JSON in columns": "JSON",
    "JSON of examples": "JSON of examples",
    "image": "image",
    "image to classify": "image",
    "octets": "tf.Example",
    "form": "form",
    "npy": "npy",
    "npz": "npz",
    "PredictRequest": "PredictRequest",
    "ClassificationRequest": "ClassificationRequest",
}
SERVER_FAILED = {500, 503, 504}
_INTERESTING = [
    b"\0",
    b"\xff" * 4,
    b"{",
    b"[" * 50,
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"-1",
    b"1e999",
    b"NaN",
    b"\r\n",
    b"9" * 30,
    b"--b",
    b"\x93NUMPY",
]
_ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@dataclass(frozen=True)
class Seed:
    """A request that is right."""

    action: str
    content_type: str
    body: bytes
    query: str = ""


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        network = save_network(Path(folder))
        options = Options(model_name=MODEL, model_base_path=str(network.base_path))
        with Server(options, pick_free_ports=True) as server:
            asyncio.run(run(server.app, make_seeds(network), random.Random(arguments.seed), arguments.inputs))
            measure(random.Random(arguments.seed), arguments.inputs)


async def run(app: RestApp, seeds: dict[str, Seed], chance: random.Random, num_inputs: int) -> None:
    """Answers so many inputs, and prints what became of them. Raises RuntimeError where the server was at fault."""
    statuses: dict[str, Counter[object]] = {name: Counter() for name in seeds}
    process, before = psutil.Process(), 0
    start = time.perf_counter()
    for number in range(num_inputs):
        if number == int(num_inputs * WARM_UP):
            before = process.memory_info().rss
        name = chance.choice(list(seeds))
        seed = seeds[name]
        if chance.random() < 0.3:
            seed = replace(seed, body=hostile(HOSTILE[name], chance))
        statuses[name][await answer(app, damaged_request(seed, chance), chance)] += 1
    after = process.memory_info().rss
    for name, counts in statuses.items():
        print(f"| {name} | {', '.join(f'{status}: {count}' for status, count in sorted(counts.items(), key=str))} |")
    megabytes = f"{before / 2**20:.0f} MB after {WARM_UP:.0%} of them, {after / 2**20:.0f} MB at the end"
    print(f"{num_inputs} inputs in {time.perf_counter() - start:.0f} s; {megabytes}")
    if any(SERVER_FAILED & counts.keys() for counts in statuses.values()):
        raise RuntimeError("The server failed")


@dataclass(frozen=True)
class Input:
    """Bytes and what they cost."""

    data: bytes
    cost: Cost

    @property
    def seconds_per_byte(self) -> float:
        """CPU time."""
        return self.cost.seconds / len(self.data)

    @property
    def memory_per_byte(self) -> float:
        """Bytes."""
        return self.cost.memory / len(self.data)

    def __str__(self) -> str:
        head, tail = self.data[:40], self.data[-20:]
        cost = f"{self.cost.seconds * 1e3:.1f} ms, {self.cost.memory / 1e6:.2f} MB"
        return f"{len(self.data)} bytes, {cost}: {head!r}...{tail!r}"


def measure(chance: random.Random, num_inputs: int) -> None:
    """Prints the costliest inputs of each decoder. Raises RuntimeError where one costs more than it may."""
    gc.collect()
    gc.freeze()  # else a collection goes through all objects of TensorFlow, and some input pays for it
    gc.set_threshold(50_000, 20, 50)  # as the server does
    start, exceeding = time.perf_counter(), 0
    worst: dict[str, list[Input]] = {}
    for _ in range(num_inputs):
        name = chance.choice(list(DECODERS))
        data = hostile(name, chance)
        cost, may = measured(DECODERS[name], data)
        if cost.exceeds(may):
            exceeding += 1
            print(f"More than {may}, {name}: {Input(data, cost)}")
        if len(data) >= SHORTEST_COMPARED:
            each = Input(data, cost)
            slowest, largest = worst.get(name, [each, each])
            worst[name] = [
                max(slowest, each, key=lambda one: one.seconds_per_byte),
                max(largest, each, key=lambda one: one.memory_per_byte),
            ]
    print("| decoder | us per byte | input | bytes per byte | input |\n|---|---|---|---|---|")
    for name, (slowest, largest) in worst.items():
        times, memory = f"{slowest.seconds_per_byte * 1e6:.2f}", f"{largest.memory_per_byte:.0f}"
        print(f"| {name} | {times} | {slowest} | {memory} | {largest} |")
    print(f"{num_inputs} inputs measured in {time.perf_counter() - start:.0f} s; {exceeding} cost more than they may")
    if exceeding:
        raise RuntimeError("An input cost more than its length allows")


def make_seeds(network: Sample) -> dict[str, Seed]:
    """A request of every kind."""
    pixels = network.example.astype(np.uint8)
    jpeg, png = tf.io.encode_jpeg(pixels).numpy(), tf.io.encode_png(pixels).numpy()
    encoded = base64.b64encode(jpeg).decode()
    predict = predict_pb2.PredictRequest(model_spec={"name": MODEL})
    predict.inputs["images"].CopyFrom(tf.make_tensor_proto(network.batch[:, :8, :8]))
    classify = classification_pb2.ClassificationRequest(model_spec={"name": MODEL, "signature_name": "classify"})
    features = classify.input.example_list.examples.add().features.feature
    features["image/encoded"].bytes_list.value.append(png)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, network.batch)
    np.savez_compressed(npz, images=network.batch)
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\nContent-Type: image/png\r\n\r\n%b\r\n'
    rows = {"instances": network.batch[:, :8, :8].tolist()}
    columns = {"signature_name": "image_bytes", "inputs": {"image_bytes": [{"b64": encoded}, {"b64": encoded}]}}
    examples = {"signature_name": "classify", "examples": [{"image/encoded": {"b64": encoded}}]}
    return {
        "JSON in rows": Seed("predict", JSON, json.dumps(rows).encode()),
        "JSON in columns": Seed("predict", JSON, json.dumps(columns).encode()),
        "JSON of examples": Seed("classify", JSON, json.dumps(examples).encode()),
        "image": Seed("predict", "image/jpeg", jpeg),
        "image to classify": Seed("classify", "image/png", png),
        "octets": Seed("predict", "application/octet-stream", png, "signature_name=image_bytes"),
        "form": Seed("predict", "multipart/form-data; boundary=b", part % png + part % jpeg + b"--b--\r\n"),
        "npy": Seed("predict", NPY, npy.getvalue()),
        "npz": Seed("predict", NPZ, npz.getvalue()),
        "PredictRequest": Seed("predict", PROTOBUF, predict.SerializeToString()),
        "ClassificationRequest": Seed("classify", PROTOBUF, classify.SerializeToString()),
    }


def damaged_request(seed: Seed, chance: random.Random) -> bytes:
    """The bytes on the wire: damaged in the body, in its compressed form, in the head, or not at all."""
    place = chance.choices(("nowhere", "body", "compressed", "head"), (1, 6, 2, 1))[0]
    body = damaged(seed.body, chance) if place == "body" else seed.body
    headers = [f"Host: x\r\nContent-Type: {seed.content_type}"]
    if place == "compressed" or chance.random() < 0.2:
        encoding = chance.choice(list(_ENCODINGS))
        body = _ENCODINGS[encoding](body)
        headers.append(f"Content-Encoding: {encoding}")
    if place == "compressed":
        body = damaged(body, chance)
    if chance.random() < 0.3:
        headers.append(f"Accept: {chance.choice([JSON, NPY, NPZ, PROTOBUF, '*/*'])};q={chance.random():.1f}")
    if chance.random() < 0.3:
        headers.append(f"Accept-Encoding: {chance.choice(list(_ENCODINGS))}")
    headers.append(f"Content-Length: {len(body)}\r\n\r\n")
    address = f"/v1/models/{MODEL}:{seed.action}" + (f"?{seed.query}" if seed.query else "")
    head = f"POST {address} HTTP/1.1\r\n".encode() + "\r\n".join(headers).encode()
    return (damaged(head, chance) if place == "head" else head) + body


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A text with up to four changes, most of them near its start, where what it says of itself stands."""
    for _ in range(chance.randint(1, 4)):
        size = len(data)
        start = min(size, int(size * chance.random() ** chance.choice((1, 4))))
        end = min(size, start + chance.choice((0, 1, 1, 4, 100)))
        new = chance.choice([b"", chance.randbytes(end - start), chance.choice(_INTERESTING), data[start:end] * 3])
        data = data[:start] + new + (data[end:] if chance.random() < 0.95 else b"")
    return data


async def answer(app: RestApp, wire: bytes, chance: random.Random) -> object:
    """The status of the first response to these bytes, which come in two pieces."""
    cut = chance.randint(0, len(wire))
    response = await exchange(app, [wire[:cut], wire[cut:]])
    return int(response.split()[1]) if response else "waits for more"


if __name__ == "__main__":
    main()
