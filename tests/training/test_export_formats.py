"""LiteRT and ONNX files and dense signatures of one real export, run as their users run them."""

import dataclasses
import json
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_prelu.networks.fully_convolutional import fully_convolutional
from training.classifier import Classifier, load_classifier, load_network, readable_images
from training.config import Config
from training.data.datasets import open_image_set
from training.data.mean import set_mean
from training.errors import InputError, TrainingError
from training.export.export import ExportOptions, describe, export
from training.export.formats import FORMATS, check_formats, write_onnx
from training.network import make_network
from training.run.checkpoint import Checkpoints
from training.run.folder import Run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("export-formats")]  # they share an export

EVERYTHING = ExportOptions(dense=True, formats=("litert", "litert_int8", "onnx"))
SMALL = Config(filters=(4, 8), convolutions=1)
LABELS = tuple(map(str, range(10)))


@pytest.fixture(scope="module")
def version(trained, tmp_path_factory):
    return export(Run(trained), dataclasses.replace(EVERYTHING, output=tmp_path_factory.mktemp("exports")))


@pytest.fixture(scope="module")
def extra(version):
    return version / "assets.extra"


@pytest.fixture(scope="module")
def classifier(trained):
    return load_classifier(Run(trained))


@pytest.fixture(scope="module")
def images(classifier):
    """Images that the export has not compared."""
    return np.stack([pixels for _, pixels in readable_images(classifier, open_image_set("digits"), "test[32:60]", 28)])


@pytest.fixture(scope="module")
def expected(classifier, images):
    return classifier.scores(images).numpy()


@pytest.fixture(scope="module")
def signatures(version):
    return tf.saved_model.load(str(version)).signatures


@pytest.fixture
def untrained(tmp_path):
    """Makes the run of a config, as its first weights are, with a mean image where it subtracts one."""

    def make(config):
        run = Run(tmp_path)
        run.start(config, LABELS, (8, 8, 1), ["CPU:0"])
        model = make_network(config, (8, 8, 1), len(LABELS))
        if config.subtract_mean:
            set_mean(model, np.linspace(0, 120, 64, dtype="float32").reshape(8, 8, 1))
        with Checkpoints(run.checkpoints, model) as checkpoints:
            checkpoints.save(1)
        return run

    return make


def interpreter_of(path):
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    return interpreter


def run_each(interpreter, images):
    runner = interpreter.get_signature_runner("serving_default")
    return np.concatenate([runner(images=image[None])["scores"] for image in images])


def operations(interpreter):
    return [each["op_name"] for each in interpreter._get_ops_details()]


def agreements(version):
    return json.loads((version / "assets.extra" / "export.json").read_text())["parity"]["agreements"]


def test_litert_has_the_scores_and_one_prelu_a_layer(extra, images, expected):
    interpreter = interpreter_of(extra / "model.tflite")
    np.testing.assert_allclose(run_each(interpreter, images), expected, atol=1e-5)
    assert operations(interpreter).count("PRELU") == 2


def test_litert_int8_computes_in_integers_alone(extra, images, expected):
    interpreter = interpreter_of(extra / "model_int8.tflite")
    (details,) = interpreter.get_input_details()
    scale, zero_point = details["quantization"]
    assert scale == pytest.approx(1, abs=0.01)
    assert zero_point == 0
    quantized = np.round(images / scale).astype(np.uint8)
    scores = run_each(interpreter, quantized) / 256
    np.testing.assert_allclose(scores, expected, atol=0.02)  # 5 of its 256 steps
    assert operations(interpreter).count("PRELU") == 2
    assert not {np.float32, np.float16} & {each["dtype"] for each in interpreter.get_tensor_details()}


def test_onnx_has_the_scores_and_one_prelu_a_layer(extra, images, expected):
    model = onnx.load(extra / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert [node.op_type for node in model.graph.node].count("PRelu") == 2
    session = onnxruntime.InferenceSession(extra / "model.onnx")
    (scores,) = session.run(["scores"], {"images": images})
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_dense_is_the_mean_score_over_all_windows(signatures, classifier, images):
    larger = tf.image.resize(images, (13, 10)).numpy()
    logits = fully_convolutional(classifier.network)(larger).numpy().astype(np.float64)
    assert logits.shape[1:3] == (3, 2)  # a stride of 2: windows begin at rows 0, 2, 4 and columns 0, 2
    windows = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found = signatures["dense"](images=larger)
    np.testing.assert_allclose(found["scores"], windows.mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_array_equal(found["classes"], windows.mean(axis=(1, 2)).argmax(axis=1))


def test_dense_is_the_network_itself_on_images_of_its_size(signatures, images, expected):
    np.testing.assert_allclose(signatures["dense"](images=images)["scores"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"), [(24, 48, slice(None), slice(None)), (5, 100, slice(None), slice(40, 60))]
)
def test_dense_bytes_scales_the_shorter_side_of_the_whole_picture(signatures, height, width, rows, columns):
    """Of one longer than four times its width, the middle."""
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 1), dtype=np.uint8)
    encoded = tf.io.encode_png(picture).numpy()
    kept = picture[rows, columns]
    size = [8 * side // min(kept.shape[:2]) for side in kept.shape[:2]]
    expected = signatures["dense"](images=tf.image.resize(kept, size, antialias=True)[None])["scores"]
    found = signatures["dense_bytes"](image_bytes=tf.constant([encoded, encoded]))["scores"]
    np.testing.assert_allclose(found, np.concatenate([expected, expected]), atol=1e-5)


def test_dense_refuses_images_smaller_than_a_window(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match="dense takes images of at least 8x8 pixels"):
        signatures["dense"](images=tf.zeros((1, 8, 7, 1)))


def test_network_that_cannot_be_moved_over_an_image_has_no_dense_signature():
    images = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(10)(keras.layers.Reshape((64,))(images))
    with pytest.raises(InputError, match="this network cannot be moved over images of any size: "):
        Classifier(keras.Model(images, logits), SMALL, LABELS, (8, 8, 1)).dense()


def test_export_json_tells_each_format_and_how_near_it_is(version, extra):
    facts = json.loads((extra / "export.json").read_text())
    assert {name: each["file"] for name, each in facts["formats"].items()} == {
        "litert": "assets.extra/model.tflite",
        "litert_int8": "assets.extra/model_int8.tflite",
        "onnx": "assets.extra/model.onnx",
    }
    for each in facts["formats"].values():
        assert (version / each["file"]).stat().st_size == each["bytes"]
    assert (facts["parity"]["split"], facts["parity"]["images"]) == ("test", 32)
    found = agreements(version)
    assert found.pop("litert_int8")["largest_difference"] < 0.02
    assert list(found) == ["serving_default", "image_bytes", "classify", "dense", "dense_bytes", "litert", "onnx"]
    assert all(each["largest_difference"] <= 1e-5 and each["top1"] == 1 for each in found.values())


def test_description_has_a_line_for_each(version):
    header, *lines = describe(version).splitlines()
    assert header.split("  ")[0] == "32 images of test"
    assert [line.split()[0] for line in lines] == list(agreements(version))


@pytest.mark.slow
def test_mean_image_is_part_of_every_format(untrained):
    run = untrained(dataclasses.replace(SMALL, subtract_mean=True))
    found = agreements(export(run, dataclasses.replace(EVERYTHING, formats=("litert", "onnx"))))
    assert max(each["largest_difference"] for each in found.values()) <= 1e-5


@pytest.mark.slow
def test_mixed_precision_is_exported_in_float32(untrained, images):
    run = untrained(dataclasses.replace(SMALL, precision="mixed_bfloat16"))
    version = export(run, ExportOptions(formats=("litert",)))
    network = make_network(SMALL, (8, 8, 1), len(LABELS))
    network.set_weights(load_network(run).get_weights())
    expected = tf.nn.softmax(network(images))
    scores = tf.saved_model.load(str(version)).signatures["serving_default"](images=images)["scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    interpreter = interpreter_of(version / "assets.extra" / "model.tflite")
    np.testing.assert_allclose(run_each(interpreter, images), expected, atol=1e-5)


@pytest.mark.slow
def test_format_that_disagrees_is_not_published(trained, tmp_path, monkeypatch):
    def write_another(classifier, path, calibration):
        another = make_network(SMALL, classifier.image_shape, len(classifier.labels))
        weights = classifier.network.get_weights()
        another.set_weights([*weights[:-1], weights[-1] + 1e-3 * np.arange(10)])
        write_onnx(dataclasses.replace(classifier, network=another), path, calibration)

    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(write=write_another))
    with pytest.raises(TrainingError, match="a score of onnx differs from the Keras model's by"):
        export(Run(trained), ExportOptions(formats=("onnx",), output=tmp_path))
    assert not list(tmp_path.iterdir())


def test_format_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"no format 'litrt' \(did you mean litert\?\); there are litert, "):
        check_formats(["onnx", "litrt"])


@pytest.mark.parametrize(
    ("name", "package"),
    [("litert", "ai_edge_litert"), *(("onnx", each) for each in ("onnx", "onnxscript", "tf2onnx", "onnxruntime"))],
)
def test_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(InputError, match=rf"{name} needs {package}, .*pip install -e '\.\[{name}\]' brings it"):
        check_formats([name])
