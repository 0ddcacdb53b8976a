"""Small exported models, and a server that has them behind real sockets."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import types

import grpc
import httpx
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from serving.options import Options
from serving.server import Server

FLOATS = tf.TensorSpec([None], tf.float32, name="x")


class Zoo(tf.Module):
    """One signature for each kind of input and output that a test needs."""

    @tf.function(input_signature=[FLOATS])
    def half_plus_two(self, x):
        return {"y": x / 2 + 2}

    @tf.function(input_signature=[FLOATS])
    def identity(self, x):
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[FLOATS])
    def two_outputs(self, x):
        return {"double": 2 * x, "count": tf.range(tf.size(x))}

    @tf.function(input_signature=[FLOATS])
    def uneven_outputs(self, x):
        return {"a": x, "b": x[1:]}

    @tf.function(input_signature=[FLOATS])
    def total(self, x):
        return {"sum": tf.reduce_sum(x)}

    @tf.function(input_signature=[FLOATS])
    def pairs(self, x):
        return {"y": tf.reshape(x, [-1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float16, name="x")])
    def halves(self, x):
        return {"y": x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="a"), tf.TensorSpec([None], tf.bool, name="b")])
    def pick(self, a, b):
        return {"y": tf.where(b, a, -a)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s")])
    def strings(self, s):
        return {"x_bytes": s, "text": tf.strings.upper(s)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s")])
    def only_text(self, s):
        return {"text": tf.strings.join([s, "!"])}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="n")])
    def slow(self, n):
        (counted,) = tf.while_loop(lambda i: i < n, lambda i: [i + 1], [tf.constant(0, tf.int64)])
        return {"counted": counted}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        scores = _parsed(inputs)
        labels = tf.tile([["cat", "dog"]], [tf.shape(scores)[0], 1])
        return {"classes": labels, "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def only_scores(self, inputs):
        return {"scores": _parsed(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs):
        return {"outputs": 10 * _parsed(inputs)[:, 0]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress_column(self, inputs):
        return {"outputs": 10 * _parsed(inputs)[:, :1]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress_wide(self, inputs):
        return {"outputs": _parsed(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress_double(self, inputs):
        return {"outputs": tf.cast(_parsed(inputs)[:, 0], tf.float64)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress_short(self, inputs):
        return {"outputs": _parsed(inputs)[1:, 0]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def flat_scores(self, inputs):
        return {"scores": _parsed(inputs)[:, 0]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def three_outputs(self, inputs):
        return {"classes": inputs, "scores": _parsed(inputs), "more": inputs}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def wide_scores(self, inputs):
        return {"scores": tf.cast(_parsed(inputs), tf.float64)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def short_scores(self, inputs):
        return {"scores": _parsed(inputs)[1:]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def unequal_classes(self, inputs):
        return {"classes": tf.strings.as_string(_parsed(inputs))[:, :1], "scores": _parsed(inputs)}


def _parsed(examples):
    """[x, 1 - x] of the float feature x, plus the feature that a context may bring."""
    features = {"x": tf.io.FixedLenFeature([], tf.float32), "shift": tf.io.FixedLenFeature([], tf.float32, 0.0)}
    parsed = tf.io.parse_example(examples, features)
    return tf.stack([parsed["x"] + parsed["shift"], 1 - parsed["x"]], axis=1)


def _save_zoo(directory):
    zoo = Zoo()
    names = [name for name in vars(Zoo) if isinstance(getattr(zoo, name), tf.types.experimental.PolymorphicFunction)]
    signatures = {name: getattr(zoo, name) for name in names}
    tf.saved_model.save(zoo, str(directory), {"serving_default": zoo.half_plus_two, **signatures})


def _save_plus(directory, number):
    """A model that adds a number: which one answered shows in what it says."""
    module = tf.Module()
    module.add = tf.function(lambda x: {"y": x + number}, input_signature=[FLOATS])
    tf.saved_model.save(module, str(directory), module.add)


class Counting(tf.Module):
    """Says how often it was run."""

    def __init__(self):
        self.runs = tf.Variable(0, dtype=tf.int64)

    @tf.function(input_signature=[FLOATS])
    def count(self, x):
        return {"runs": tf.fill(tf.shape(x), self.runs.assign_add(1))}

    slow = Zoo.slow


@contextlib.contextmanager
def _serve(base_path, name="zoo", **options):
    options = {"max_num_load_retries": 0, **options}
    with Server(Options(model_name=name, model_base_path=str(base_path), **options), pick_free_ports=True) as server:
        yield server


@contextlib.contextmanager
def _serve_by(engine, base_path):
    """A server of another engine, as a process of its own."""
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        ports = [probe.getsockname()[1] for probe in (one, other)]
    flags = [f"--engine={engine}", "--host=0.0.0.0", f"--port={ports[0]}", f"--rest_api_port={ports[1]}"]
    command = [sys.executable, "-m", "serving", *flags, "--model_name=zoo", f"--model_base_path={base_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert [process.stdout.readline().split()[0] for _ in ports] == ["Running", "Exporting"]
            yield types.SimpleNamespace(grpc_port=ports[0], rest_port=ports[1], process=process)
        finally:
            process.terminate()


@contextlib.contextmanager
def _serve_config(path, **options):
    options = {"file_system_poll_wait_seconds": 0.05, "max_num_load_retries": 0, **options}
    with Server(Options(model_config_file=str(path), **options), pick_free_ports=True) as server:
        yield server


@contextlib.contextmanager
def _rest_client(server):
    url = f"http://127.0.0.1:{server.rest_port}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


@contextlib.contextmanager
def _busy(threads):
    """Keeps the one thread of a pool from all else as long as the context is open."""
    gate, started = threading.Event(), threading.Event()

    def hold():
        started.set()
        assert gate.wait(20)

    held = threads.submit(hold)
    assert started.wait(20)
    try:
        yield
    finally:
        gate.set()
        held.result(20)


class Stubs:
    """The stubs of tensorflow-serving-api on one channel."""

    def __init__(self, channel):
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)


@contextlib.contextmanager
def _grpc_stubs(server):
    longest = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=longest) as channel:
        yield Stubs(channel)


def _predict_request(signature="", model="zoo", version=None, label=None, outputs=(), **inputs):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def _recovers(code, arguments, complaint):
    """Runs code in a child process that logs a complaint, and exits with 0 after a line on its standard input."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert complaint in process.stderr.readline()
            process.communicate("go on\n", timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0


# Test modules cannot import this one, so what they call comes to them as fixtures.


@pytest.fixture(scope="session")
def serve():
    return _serve


@pytest.fixture(scope="session")
def serve_config():
    return _serve_config


@pytest.fixture(scope="session")
def rest_client():
    return _rest_client


@pytest.fixture(scope="session")
def busy():
    return _busy


@pytest.fixture(scope="session")
def grpc_stubs():
    return _grpc_stubs


@pytest.fixture(scope="session")
def recovers():
    return _recovers


@pytest.fixture(scope="session")
def predict_request():
    return _predict_request


@pytest.fixture(scope="session")
def save_plus():
    return _save_plus


@pytest.fixture(scope="session")
def status_of():
    """The code and the text of a call that fails."""

    def status(call, *arguments, **options):
        with pytest.raises(grpc.RpcError) as caught:
            call(*arguments, **options)
        return caught.value.code().name, caught.value.details()

    return status


@pytest.fixture(scope="session")
def example():
    """A tf.Example of float features."""

    def make(**features):
        message = example_pb2.Example()
        for name, value in features.items():
            message.features.feature[name].float_list.value.append(value)
        return message

    return make


@pytest.fixture(scope="session")
def zoo_path(tmp_path_factory):
    base_path = tmp_path_factory.mktemp("zoo")
    _save_zoo(base_path / "00000123")
    return base_path


@pytest.fixture(scope="session")
def counting_path(tmp_path_factory):
    base_path = tmp_path_factory.mktemp("counting")
    counting = Counting()
    tf.saved_model.save(counting, str(base_path / "1"), {"count": counting.count, "slow": counting.slow})
    return base_path


@pytest.fixture(scope="session")
def server(zoo_path):
    """Of the engine that SERVING_TEST_ENGINE names."""
    engine = os.environ.get("SERVING_TEST_ENGINE")
    with _serve_by(engine, zoo_path) if engine else _serve(zoo_path) as running:
        yield running


@pytest.fixture(scope="session")
def rest(server):
    with _rest_client(server) as client:
        yield client


@pytest.fixture(scope="session")
def stubs(server):
    with _grpc_stubs(server) as both:
        yield both
