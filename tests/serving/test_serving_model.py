"""SavedModels of both generations, loaded and run without a server."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from serving.call import Call
from serving.errors import Code, ServingError
from serving.models.session import load
from serving.rest.content import STATUSES as REST_STATUSES
from serving.rpc.interceptor import STATUSES as GRPC_STATUSES

pytestmark = pytest.mark.xdist_group("serving")
v1 = tf.compat.v1


@pytest.fixture(scope="module")
def graph_model(tmp_path_factory):
    """A TF1 graph with a variable, an asset that its initializer reads, and a shape that it declares."""
    directory = tmp_path_factory.mktemp("graph") / "1"
    words = tmp_path_factory.mktemp("assets") / "words.txt"
    words.write_text("cat\ndog\n")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        scale = v1.get_variable("scale", initializer=3.0, use_resource=False)
        path = tf.constant(str(words))
        y = tf.identity(x * scale, name="y")
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                path, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
            ),
            -1,
        )
        s = v1.placeholder(tf.string, [None], name="s")
        index = table.lookup(s)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": v1.saved_model.predict_signature_def({"x": x}, {"y": y}),
                "index": v1.saved_model.predict_signature_def({"s": s}, {"index": index}),
            },
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    words.unlink()  # the copy in the export must do
    model = load(directory)
    yield model
    model.close()


@pytest.fixture(scope="module")
def zoo(zoo_path):
    model = load(zoo_path / "00000123")
    yield model
    model.close()


def test_variables_are_restored(graph_model):
    outputs = graph_model.run("", {"x": np.float32([[1], [2]])})
    np.testing.assert_array_equal(outputs["y"], [[3], [6]])


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 5)])
def test_declared_shape_of_a_placeholder_is_not_enforced(graph_model, shape):
    outputs = graph_model.run("", {"x": np.ones(shape, np.float32)})
    np.testing.assert_array_equal(outputs["y"], np.full(shape, 3))


def test_assets_initialize_tables(graph_model):
    outputs = graph_model.run("index", {"s": np.array([b"dog", b"cow", b"cat"], object)})
    assert outputs["index"].tolist() == [1, -1, 0]


def test_signatures_are_described(zoo):
    signature = zoo.signatures["pick"]
    assert {name: (info.dtype, info.shape) for name, info in signature.inputs.items()} == {
        "a": ("int64", (None,)),
        "b": ("bool", (None,)),
    }
    assert signature.method_name == "tensorflow/serving/predict"
    assert "__saved_model_init_op" not in zoo.signatures


def test_only_named_outputs_are_computed(zoo):
    outputs = zoo.run("two_outputs", {"x": np.float32([1, 2])}, ["double"])
    assert list(outputs) == ["double"]


def test_scalar_and_string_outputs_are_arrays(zoo):
    total = zoo.run("total", {"x": np.float32([1, 2])})["sum"]
    assert (type(total), total.shape, total.dtype) == (np.ndarray, (), np.float32)
    text = zoo.run("only_text", {"s": np.array(b"a\0", object)})["text"]
    assert (text.shape, text.dtype, text[()]) == ((), object, b"a\0!")


ARRAYS = {
    "strided": np.arange(8, dtype=np.float32)[::2],
    "backwards": np.arange(4, dtype=np.float32)[::-1],
    "column-major": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "read-only": np.frombuffer(np.float32([1, 2]).tobytes(), np.float32),
    "empty": np.zeros(0, np.float32),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_array_of_any_layout(zoo, array):
    np.testing.assert_array_equal(zoo.run("identity", {"x": array})["y"], array)


@pytest.mark.parametrize("kind", ["O", "S", "U"])
def test_strings_in_any_kind_of_array(zoo, kind):
    array = np.array(["a", "bc"]).astype(kind) if kind != "O" else np.array([b"a", b"bc"], object)
    assert zoo.run("only_text", {"s": array})["text"].tolist() == [b"a!", b"bc!"]


def test_timeout_ends_the_run(zoo):
    with pytest.raises(ServingError) as caught:
        zoo.run("slow", {"n": np.int64(10**9)}, call=Call(timeout=0.2))
    assert caught.value.code is Code.DEADLINE_EXCEEDED


def test_text_of_an_operation_names_no_file(zoo):
    with pytest.raises(ServingError) as caught:
        zoo.run("pairs", {"x": np.float32([1])})
    assert "/" not in caught.value.message
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_tags_that_no_graph_has(zoo_path):
    with pytest.raises(ServingError) as caught:
        load(zoo_path / "00000123", ["serve", "gpu"])
    assert str(caught.value) == (
        "NOT_FOUND: Could not find meta graph def matching supplied tags: { gpu serve }. To inspect available "
        "tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )


def test_default_makes_an_input_optional(tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32)
    module.add = tf.function(lambda x, y: {"sum": x + y}, input_signature=[spec, spec])
    tf.saved_model.save(module, str(tmp_path), module.add)
    path = tmp_path / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    defaults = saved_model.meta_graphs[0].signature_def["serving_default"].defaults
    defaults["y"].CopyFrom(tf.make_tensor_proto(np.float32([10])))
    path.write_bytes(saved_model.SerializeToString())
    model = load(tmp_path)
    assert model.run("", {"x": np.float32([1, 2])})["sum"].tolist() == [11, 12]
    with pytest.raises(ServingError, match=r"or default input alias set: y$"):
        model.run("", {"y": np.float32([1])})
    with pytest.raises(
        ServingError,
        match=r"^INVALID_ARGUMENT: Inputs contains invalid name\. Used request inputs: x, request input: x,z$",
    ):
        model.run("", {"x": np.float32([1]), "z": np.float32([1])})
    model.close()


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_status_of_its_name(code):
    assert GRPC_STATUSES[code].name == code.name
    assert GRPC_STATUSES[code].value[0] == code
    assert code in REST_STATUSES
