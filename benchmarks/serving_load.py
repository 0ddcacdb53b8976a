"""Load from compiled clients: wrk for REST, h2load for gRPC, so that the client takes little of the server's cores."""

import base64
import json
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from benchmarks.serving_models import Sample

_WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")
local file = io.open(os.getenv("BODY"), "rb")
wrk.body = file:read("*all")
done = function(summary, latency, requests)
    local errors = summary.errors
    local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format("RESULT %d %d %f %f %d\\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), failures))
end
"""
_METHOD = "tensorflow.serving.PredictionService/Predict"


@dataclass(frozen=True)
class Load:
    """What a client saw: requests a second, and the median and the 99th percentile of their times in seconds."""

    rate: float
    median: float
    p99: float


def rest_body(sample: Sample) -> bytes:
    """A predict request in rows."""
    value: Any = sample.example.tolist()
    if isinstance(value, bytes):
        value = {"b64": base64.b64encode(value).decode()}
    return json.dumps({"signature_name": sample.signature_name, "instances": [value]}).encode()


def grpc_message(sample: Sample, model: str) -> bytes:
    """A PredictRequest as tf.make_tensor_proto makes it, in tensor_content where there are numbers."""
    request = predict_pb2.PredictRequest(model_spec={"name": model, "signature_name": sample.signature_name})
    request.inputs[sample.input_name].CopyFrom(tf.make_tensor_proto(sample.batch))
    return request.SerializeToString()


def load_rest(url: str, body: bytes, streams: int, seconds: float, content_type: str = "application/json") -> Load:
    """POSTs a body again and again, over so many connections. Raises RuntimeError where an answer is no success."""
    with tempfile.TemporaryDirectory() as name:
        script, content = Path(name, "post.lua"), Path(name, "body")
        script.write_text(_WRK_SCRIPT)
        content.write_bytes(body)
        command = ["wrk", "-t1", f"-c{streams}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "-s", script, url]
        told = {"BODY": str(content), "CONTENT_TYPE": content_type}
        printed = subprocess.run(command, check=True, capture_output=True, text=True, env=told).stdout
    line = next(each for each in printed.splitlines() if each.startswith("RESULT"))
    requests, duration, median, p99, failures = map(float, line.split()[1:])
    if failures:
        raise RuntimeError(f"{failures:.0f} of {requests:.0f} requests to {url} failed")
    return Load(requests / duration * 1e6, median / 1e6, p99 / 1e6)


def load_grpc(port: int, message: bytes, streams: int, requests: int) -> Load:
    """Calls Predict so many times, as streams of up to four connections. The server's metrics tell what failed."""
    connections = min(4, streams)
    with tempfile.TemporaryDirectory() as name:
        frame, log = Path(name, "frame"), Path(name, "log")
        frame.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        command = ["h2load", f"-n{requests}", f"-c{connections}", f"-m{streams // connections}", "-t1", f"-d{frame}"]
        command += [f"--log-file={log}", "-Hcontent-type: application/grpc", "-Hte: trailers"]
        command.append(f"http://127.0.0.1:{port}/{_METHOD}")
        subprocess.run(command, check=True, capture_output=True)
        started, statuses, taken = np.loadtxt(log, unpack=True)  # microseconds
    if len(statuses) != requests or (statuses != 200).any():
        raise RuntimeError(f"{(statuses == 200).sum()} of {requests} calls were answered")
    duration = (started + taken).max() - started.min()
    return Load(requests / duration * 1e6, float(np.median(taken)) / 1e6, float(np.quantile(taken, 0.99)) / 1e6)
