"""Evaluation, prediction, report and export of networks that are not this project's."""

import dataclasses
import json

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from training.classifier import load_classifier
from training.config import Config
from training.errors import InputError
from training.evaluation.evaluate import evaluate_runs
from training.evaluation.predict import predict
from training.evaluation.views import Protocol
from training.export.export import ExportOptions, export
from training.network import make_network
from training.report.report import write_report
from training.run.checkpoint import Checkpoints
from training.run.folder import Run

pytestmark = pytest.mark.slow

SHAPE = (32, 32, 3)


def sequential(image_shape, num_classes):
    convolutions = [keras.layers.Conv2D(8, 3, strides=2, use_bias=False), keras.layers.BatchNormalization()]
    ends = [keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(image_shape), keras.layers.Rescaling(1 / 255), *convolutions, *ends])


def nested(image_shape, num_classes):
    images = keras.Input(image_shape)
    inner = keras.Sequential([keras.Input(image_shape), keras.layers.Conv2D(4, 3), keras.layers.ReLU()], name="inner")
    x = keras.layers.Flatten()(inner(images / 127.5 - 1))
    return keras.Model(images, keras.layers.Dense(num_classes)(x))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Dark and light images of four sizes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 6)):
        for label, bounds in (("dark", (0, 120)), ("light", (130, 255))):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                size = [(32, 32), (40, 32), (32, 57), (50, 41)][index % 4]
                pixels = rng.integers(*bounds, (*size, 3), "uint8")
                PIL.Image.fromarray(pixels).save(folder / split / label / f"{index}.png")
    return folder


@pytest.fixture
def run_of(tmp_path, photos):
    """Makes the run of a network as its first weights are, but for statistics of BatchNormalization that are moved."""

    def make(network, **fields):
        config = Config(
            dataset="image_folder", data_dir=str(photos), image_size=32, flip=True, network=network, **fields
        )
        config = dataclasses.replace(config, test_split="val")
        run = Run(tmp_path)
        run.start(config, ("dark", "light"), SHAPE, ["CPU:0"])
        keras.utils.set_random_seed(0)
        model = make_network(config, SHAPE, 2)
        for variable in model.non_trainable_variables:
            if "moving" in variable.name:
                variable.assign(variable + 0.25)
        with Checkpoints(run.checkpoints, model) as checkpoints:
            checkpoints.save(1)
        return run

    return make


def check_everything(run, photos, *, dense, formats=("litert", "litert_int8", "onnx")):
    classifier = load_classifier(run)
    files = sorted((photos / "val").rglob("*.png"))
    pixels = tf.stack([classifier.decode(path.read_bytes()) for path in files])
    expected = tf.nn.softmax(tf.cast(classifier.network(pixels, training=False), tf.float32)).numpy()
    found = [dict(each.answers) for each in predict(run, files, top=2)]
    tolerance = 1e-5 if classifier.config.precision == "float32" else 0.02
    np.testing.assert_allclose([[each["dark"], each["light"]] for each in found], expected, atol=tolerance)
    error = np.mean(expected.argmax(axis=1) != [path.parent.name == "light" for path in files])
    for views in ("centre", "ten", *(["dense"] if dense else [])):
        result = evaluate_runs([run], Protocol(views=views), devices="CPU:0,CPU:1")
        assert result["images"] == 12
        if views == "centre":
            assert result["top1_error"] == pytest.approx(error)
    version = export(run, ExportOptions(formats=formats, dense=dense))
    facts = json.loads((version / "assets.extra" / "export.json").read_text())
    assert (facts["checkpoint"], facts["step"], facts["metrics"]) == ("last", 1, {})
    agreements = facts["parity"]["agreements"]
    signatures = ["serving_default", "image_bytes", "classify", *(["dense", "dense_bytes"] if dense else []), *formats]
    assert list(agreements) == signatures
    assert all(each["largest_difference"] <= 1e-5 for name, each in agreements.items() if name != "litert_int8")
    assert "They cannot be measured" not in write_report(run).read_text()


def test_network_with_batch_normalization(run_of, photos):
    check_everything(run_of(f"{__name__}:sequential"), photos, dense=True)


@pytest.mark.timeout(600)
def test_network_of_keras_applications(run_of, photos):
    check_everything(run_of("keras.applications:MobileNet"), photos, dense=True, formats=())


def test_mixed_precision_is_exported_in_float32(run_of, photos):
    check_everything(run_of(f"{__name__}:sequential", precision="mixed_bfloat16"), photos, dense=True)


def test_nested_network_has_no_dense_views(run_of, photos):
    run = run_of(f"{__name__}:nested")
    check_everything(run, photos, dense=False)
    with pytest.raises(InputError, match="this network cannot be moved over images of any size: inner is a model of"):
        evaluate_runs([run], Protocol(views="dense"))
    with pytest.raises(InputError, match="this network cannot be moved over images of any size: inner is a model of"):
        export(run, ExportOptions(dense=True))


def test_keras_file_with_its_own_mixed_policies(run_of, photos, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        nested(SHAPE, 2).save(tmp_path / "mine.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    run = run_of(str(tmp_path / "mine.keras"))
    classifier = load_classifier(run)
    exact = classifier.in_float32()
    assert classifier.network.layers[-1].compute_dtype == "bfloat16"
    pixels = np.random.default_rng(1).uniform(0, 255, (4, *SHAPE)).astype("float32")
    np.testing.assert_allclose(exact.scores(pixels), classifier.scores(pixels), atol=0.05)
    assert "dense" not in json.loads((export(run) / "assets.extra" / "export.json").read_text())["parity"]["agreements"]
