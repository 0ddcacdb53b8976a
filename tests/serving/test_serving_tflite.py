"""TFLite models in place of SavedModels."""

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers import flexbuffers
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated as schema

from serving.call import Call
from serving.errors import Code, ServingError
from serving.models import tflite
from serving.options import Options
from serving.repository.loader import Loader
from serving.telemetry.metrics import Metrics

pytestmark = pytest.mark.xdist_group("serving")

X, N, Y, Z = "serving_default_x:0", "serving_default_n:0", "PartitionedCall:0", "PartitionedCall:1"
VECTOR, SCALAR = tf.TensorSpec([None], tf.float32, name="x"), tf.TensorSpec([], tf.float32, name="n")


def halved_and_shifted(x, n):
    return {"y": x / 2 + n, "z": x - n}


def swapped(s):
    return {"t": tf.gather(s, [1, 0])}


def convert(function, *specs):
    module = tf.Module()
    module.run = tf.function(function, input_signature=specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module).convert()


@pytest.fixture(scope="module")
def content():
    return convert(halved_and_shifted, VECTOR, SCALAR)


@pytest.fixture
def load(tmp_path):
    def write(content, num_interpreters=1):
        (tmp_path / "model.tflite").write_bytes(content)
        return tflite.load(tmp_path, num_interpreters)

    return write


def with_signatures(content, definitions):
    """The model with SignatureDefs in its metadata, as tensorflow/lite/tools/signature writes them."""
    model = schema.ModelT.InitFromPackedBuf(content)
    stored = flexbuffers.Builder()
    with stored.Map():
        for key, definition in definitions.items():
            stored.String(key, definition.SerializeToString().decode("ascii"))  # it takes nothing but text
    buffer, metadata = schema.BufferT(), schema.MetadataT()
    buffer.data = list(stored.Finish())
    metadata.name, metadata.buffer = "signature_defs_metadata", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), metadata]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_signature_is_made_up_from_the_names_of_tensors(load, content):
    model = load(content)
    signature = model.signatures["serving_default"]
    assert {name: (info.dtype, info.shape) for name, info in signature.inputs.items()} == {
        X: ("float", (None,)),
        N: ("float", ()),
    }
    assert signature.outputs.keys() == {Y, Z}
    assert signature.method_name == "tensorflow/serving/predict"


@pytest.mark.parametrize("size", [1, 4, 2])
def test_vectors_of_any_length(load, content, size):
    x, n = np.arange(size, dtype=np.float32), np.float32(10)
    model = load(content)
    for shifted in (n, n + 1):
        outputs = model.run("", {X: x, N: shifted})
        np.testing.assert_array_equal(outputs[Y], x / 2 + shifted)
        np.testing.assert_array_equal(outputs[Z], x - shifted)


def test_strings_are_bytes(load):
    model = load(convert(swapped, tf.TensorSpec([2], tf.string, name="s")))
    (alias,) = model.signatures["serving_default"].inputs
    assert model.signatures["serving_default"].inputs[alias].dtype == "string"
    (output,) = model.run("", {alias: np.array([b"a\0b", b"\xff"], object)}).values()
    assert output.tolist() == [b"\xff", b"a\0b"]


def test_signatures_in_the_metadata_name_inputs_and_outputs(load, content):
    definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    for described, alias, tensor, sizes in (
        (definition.inputs, "x", X, [1]),
        (definition.inputs, "n", N, []),
        (definition.outputs, "y", Y, [1]),
    ):
        described[alias].name = tensor
        described[alias].dtype = tf.float32.as_datatype_enum
        for size in sizes:
            described[alias].tensor_shape.dim.add(size=size)
    model = load(with_signatures(content, {"half": definition}))
    assert model.signatures.keys() == {"half"}
    outputs = model.run("half", {"x": np.float32([2, 4]), "n": np.float32(1)})
    assert {name: array.tolist() for name, array in outputs.items()} == {"y": [2, 3]}


def test_shape_that_does_not_fit(load):
    model = load(convert(swapped, tf.TensorSpec([2], tf.string, name="s")))
    (alias,) = model.signatures["serving_default"].inputs
    with pytest.raises(ServingError) as caught:
        model.run("", {alias: np.array([b"a"], object)})
    assert caught.value.code is Code.INTERNAL
    assert caught.value.message.startswith("Failed to run interpreter.")
    fits = {alias: np.array([b"a", b"b"], object)}
    assert [output.tolist() for output in model.run("", fits).values()] == [[b"b", b"a"]]


def test_file_that_is_no_model(load):
    with pytest.raises(ServingError, match=r"^INVALID_ARGUMENT: Cannot build FlatBufferModel from .*/model\.tflite: "):
        load(b"not a model, but long enough to look like one")


def test_wait_for_an_interpreter_ends_in_time(load, content):
    model = load(content)
    interpreter = model.runner._free.get()
    with pytest.raises(ServingError, match=r"^DEADLINE_EXCEEDED: Timed out waiting for an interpreter$"):
        model.run("", {X: np.zeros(1, np.float32), N: np.float32(0)}, call=Call(timeout=0.05))
    model.runner._free.put(interpreter)
    assert model.run("", {X: np.zeros(1, np.float32), N: np.float32(0)}, [Z], call=Call(timeout=0.05))[Z] == [0]


@pytest.mark.parametrize(("prefers", "value"), [(True, 11.0), (False, 3.0)], ids=["preferred", "not-asked-for"])
def test_flag_chooses_the_model(serve, rest_client, save_plus, content, tmp_path, prefers, value):
    save_plus(tmp_path / "1", 2)
    (tmp_path / "1" / "model.tflite").write_bytes(content)
    with serve(tmp_path, prefer_tflite_model=prefers) as server, rest_client(server) as rest:
        inputs = {X: [2.0], N: 10.0} if prefers else {"x": [1.0]}
        answer = rest.post("/v1/models/zoo:predict", json={"inputs": inputs}).json()
    assert (answer["outputs"][Y] if prefers else answer["outputs"]) == [value]


def test_flags_say_how_many_interpreters_there_are(content, tmp_path):
    (tmp_path / "model.tflite").write_bytes(content)
    options = Options(prefer_tflite_model=True, num_tflite_pools=2, num_tflite_interpreters_per_pool=3)
    runner = Loader(options, Metrics())(tmp_path).runner.runner
    for _ in range(6):
        runner._free.get_nowait()
    with pytest.raises(ServingError, match="Timed out waiting for an interpreter"):
        runner.run({}, [], Call(timeout=0))
