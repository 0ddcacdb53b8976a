"""Requests of the client, read by TensorFlow's own messages."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving.client.grpc_calls import predict_request
from serving.wire.requests import ModelSpec
from serving.wire.signatures import DTYPES

pytestmark = pytest.mark.xdist_group("serving")


def read(spec, inputs, output_names=()):
    return predict_pb2.PredictRequest.FromString(predict_request(spec, inputs, output_names))


def sample(word):
    if word == "string":
        return np.array([[b"a", b"\xff\0"], [b"", b"longer than one"]], object)
    return np.array([[0, 1], [-2, 3]]).astype(DTYPES[word].numpy)


@pytest.mark.parametrize("word", DTYPES)
def test_array_of_each_type_is_read_by_tensorflow(word):
    array = tf.make_ndarray(read(ModelSpec("m"), {"x": sample(word)}).inputs["x"])
    assert array.dtype == DTYPES[word].numpy
    np.testing.assert_array_equal(array, sample(word))


@pytest.mark.parametrize(
    "array",
    [
        np.float32(1.5).reshape(()),
        np.zeros((0, 3), np.int32),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(9, dtype=np.int8)[::-2],
        np.arange(300, dtype=np.float64),
    ],
    ids=["scalar", "empty", "transposed", "reversed", "length-of-two-bytes"],
)
def test_array_of_any_layout_is_read_by_tensorflow(array):
    back = tf.make_ndarray(read(ModelSpec("m"), {"x": array}).inputs["x"])
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


def test_several_inputs_of_several_sizes_keep_their_names():
    inputs = {"a": np.ones(2, np.float32), "\u03b2": np.array(["text"]), "c": np.zeros(1000, np.uint8)}
    message = read(ModelSpec("m"), inputs)
    assert message.inputs.keys() == inputs.keys()
    assert tf.make_ndarray(message.inputs["a"]).tolist() == [1, 1]
    assert tf.make_ndarray(message.inputs["\u03b2"]).tolist() == [b"text"]
    assert tf.make_ndarray(message.inputs["c"]).tolist() == [0] * 1000


def test_same_array_again_and_another_of_its_shape():
    for value in (1, 1, 2):
        message = read(ModelSpec("m"), {"x": np.array([value])})
        assert tf.make_ndarray(message.inputs["x"]).tolist() == [value]


@pytest.mark.parametrize(
    ("spec", "choice"),
    [(ModelSpec("m"), None), (ModelSpec("m", 3), "version"), (ModelSpec("m", label="stable"), "version_label")],
    ids=["latest", "version", "label"],
)
def test_model_signature_and_outputs_are_named(spec, choice):
    message = read(spec._replace(signature_name="s"), {}, ["y", "z"])
    assert (message.model_spec.name, message.model_spec.signature_name) == ("m", "s")
    assert message.model_spec.WhichOneof("version_choice") == choice
    assert (message.model_spec.version.value, message.model_spec.version_label) == (spec.version or 0, spec.label or "")
    assert list(message.output_filter) == ["y", "z"]


def test_type_that_no_tensor_has_is_refused():
    with pytest.raises(ValueError, match="There is no tensor of type datetime64"):
        predict_request(ModelSpec("m"), {"x": np.array(["2026-01-01"], "datetime64[D]")}, ())


def test_array_that_fits_no_message_is_refused_before_it_is_copied():
    endless = np.broadcast_to(np.uint8(0), 2**31)
    with pytest.raises(ValueError, match="Input x takes 2147483648 bytes"):
        predict_request(ModelSpec("m"), {"x": endless}, ())
