"""Clients of each kind get the same answers from a server."""

import io

import numpy as np
import pytest
from PIL import Image

from serving.client import Code, ServingError, State, TensorInfo

pytestmark = pytest.mark.xdist_group("serving")


def test_array_with_a_name(client):
    outputs = client.predict({"x": np.float32([1, 2])}).outputs
    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    assert outputs["y"].tolist() == [2.5, 3.0]


def test_value_for_the_only_input(client):
    assert client.predict([1, 2]).outputs["y"].tolist() == [2.5, 3.0]


def test_several_inputs_and_types(client):
    outputs = client.predict({"a": [2**60, 2], "b": [True, False]}, signature="pick").outputs
    assert outputs["y"].dtype == np.int64
    assert outputs["y"].tolist() == [2**60, -2]


def test_several_outputs(client):
    outputs = client.predict([1.5, 2], signature="two_outputs").outputs
    assert outputs["double"].tolist() == [3, 4]
    assert outputs["count"].dtype == np.int32
    assert outputs["count"].tolist() == [0, 1]


def test_some_of_the_outputs(client):
    assert list(client.predict([1], signature="two_outputs", outputs=["count"]).outputs) == ["count"]


def test_numbers_that_are_not_finite(client):
    values = np.float32([np.nan, np.inf, -np.inf, 0.1])
    np.testing.assert_array_equal(client.predict({"x": values}, signature="identity").outputs["y"], values)


def test_array_whose_rows_do_not_lie_together(client):
    values = np.arange(6, dtype=np.float32)[::2]
    assert client.predict({"x": values}, signature="identity").outputs["y"].tolist() == [0, 2, 4]


def test_bytes_and_text(client):
    outputs = client.predict([b"a\xff", "b"], signature="strings", outputs=["x_bytes"]).outputs
    assert outputs["x_bytes"].tolist() == [b"a\xff", b"b"]
    assert client.predict(["caf\u00e9"], signature="only_text").outputs["text"].tolist() == ["caf\u00e9!".encode()]


def test_file_and_image_alone_are_a_batch_of_one(client, tmp_path):
    (tmp_path / "file").write_bytes(b"\x89data")
    assert client.predict(tmp_path / "file", signature="strings").outputs["x_bytes"].tolist() == [b"\x89data"]
    assert client.predict(b"data", signature="strings").outputs["x_bytes"].tolist() == [b"data"]
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    (sent,) = client.predict(image, signature="strings").outputs["x_bytes"]
    assert Image.open(io.BytesIO(sent)).getpixel((1, 0)) == (1, 2, 3)


def test_version_that_is_asked(client):
    assert client.predict([1], version=123).outputs["y"].tolist() == [2.5]
    with pytest.raises(ServingError, match="Servable not found for request") as caught:
        client.predict({"x": np.float32([1])}, version=7)
    assert caught.value.code is Code.NOT_FOUND


def test_label_that_is_unknown(client):
    with pytest.raises(ServingError, match="Unrecognized servable version label: canary") as caught:
        client.predict({"x": np.float32([1])}, label="canary")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_signature_that_is_unknown(client):
    with pytest.raises(ServingError, match='"nothing" not found'):
        client.predict([1], signature="nothing")


def test_input_that_is_unknown(client):
    with pytest.raises(ValueError, match="signature serving_default has no input z; its inputs: x"):
        client.predict({"z": [1]})


def test_value_without_a_name_for_two_inputs(client):
    with pytest.raises(ValueError, match="signature pick takes several inputs: give a dict of a, b"):
        client.predict([1], signature="pick")


def test_output_that_is_unknown(client):
    with pytest.raises(ServingError, match="z") as caught:
        client.predict({"x": np.float32([1])}, outputs=["z"])
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_file_that_is_missing(client, tmp_path):
    with pytest.raises(FileNotFoundError):
        client.predict(tmp_path / "nothing", signature="strings")


def test_classes_of_examples(client):
    rows = client.classify([{"x": 0.25}, {"x": [1.0]}], signature="classify")
    assert [[(each.label, each.score) for each in row] for row in rows] == [
        [("cat", 0.25), ("dog", 0.75)],
        [("cat", 1.0), ("dog", 0.0)],
    ]


def test_values_of_examples(client):
    values = client.regress([{"x": np.float32(0.5)}, {"x": np.float32([2])}], signature="regress")
    assert values.dtype == np.float32
    assert values.tolist() == [5, 20]


def test_context_of_examples(client):
    assert client.regress([{"x": 1.0}], context={"shift": 0.5}, signature="regress").tolist() == [15]


def test_feature_of_mixed_kinds(client):
    with pytest.raises(ValueError, match="feature x must be integers, floats or bytes, and is of type int, str"):
        client.classify([{"x": [1, "a"]}], signature="classify")


def test_signatures_of_a_model(client):
    signatures = client.metadata()
    assert signatures["serving_default"].inputs["x"].dtype == "float"
    assert signatures["pick"].inputs == {
        "a": TensorInfo(signatures["pick"].inputs["a"].name, "int64", (None,)),
        "b": TensorInfo(signatures["pick"].inputs["b"].name, "bool", (None,)),
    }
    assert signatures["slow"].inputs["n"].shape == ()
    assert signatures["classify"].outputs["classes"].dtype == "string"
    assert signatures["classify"].method_name == "tensorflow/serving/predict"


def test_versions_of_a_model(client):
    (status,) = client.status()
    assert (status.version, status.state, status.code, status.message) == (123, State.AVAILABLE, Code.OK, "")


def test_error_of_a_model(client):
    with pytest.raises(ServingError) as caught:
        client.predict([1, 2, 3], signature="pairs")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "reshape" in caught.value.message.lower()


def test_call_that_takes_too_long(client):
    with pytest.raises(ServingError) as caught:
        client.predict({"n": np.int64(400_000)}, signature="slow", timeout=0.1)
    assert caught.value.code is Code.DEADLINE_EXCEEDED


@pytest.mark.slow
def test_version_that_answered_is_known_over_grpc(open_client, url_of, server):
    with open_client("grpc", url_of(server, "grpc"), "zoo") as client:
        assert client.predict([1]).spec.version == 123
