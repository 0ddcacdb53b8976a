import json

import numpy as np
import pytest
import tensorflow as tf

from training.classifier import load_network
from training.data.datasets import open_image_set
from training.data.preprocessing import decode_image
from training.errors import InputError
from training.export import export as export_module
from training.export.export import export, weights_sha256
from training.run.folder import Run

pytestmark = pytest.mark.slow

IMAGES = 20


@pytest.fixture(scope="module")
def exported(trained):
    return export(Run(trained))


@pytest.fixture
def encoded():
    return [image.numpy() for image, _ in open_image_set("digits").encoded("test").take(IMAGES)]


@pytest.fixture
def keras_scores(trained, encoded):
    pixels = tf.stack([decode_image(image, (8, 8, 1)) for image in encoded])
    return tf.nn.softmax(load_network(Run(trained))(pixels)).numpy()


def signature(folder, name):
    loaded = tf.saved_model.load(str(folder))
    return lambda **inputs: {key: value.numpy() for key, value in loaded.signatures[name](**inputs).items()}


def test_serving_default_takes_pixels(exported, encoded, keras_scores):
    pixels = tf.stack([decode_image(image, (8, 8, 1)) for image in encoded])
    outputs = signature(exported, "serving_default")(images=pixels)
    np.testing.assert_allclose(outputs["scores"], keras_scores, atol=1e-5)
    np.testing.assert_array_equal(outputs["classes"], keras_scores.argmax(axis=1))
    assert outputs["classes"].dtype == np.int64


def test_image_bytes_takes_encoded_images(exported, encoded, keras_scores):
    outputs = signature(exported, "image_bytes")(image_bytes=tf.constant(encoded))
    np.testing.assert_allclose(outputs["scores"], keras_scores, atol=1e-5)


def test_classify_takes_examples_and_answers_the_best_first(exported, encoded, keras_scores):
    def example(image):
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
        return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()

    outputs = signature(exported, "classify")(inputs=tf.constant([example(image) for image in encoded]))
    assert outputs["classes"].shape == outputs["scores"].shape == (IMAGES, 5)
    np.testing.assert_allclose(outputs["scores"], -np.sort(-keras_scores, axis=1)[:, :5], atol=1e-5)
    assert [int(row[0]) for row in outputs["classes"]] == keras_scores.argmax(axis=1).tolist()


def test_folder_holds_the_contracts_parts(trained, exported):
    assert exported == trained / "export" / "1"
    assert (exported / "assets" / "labels.txt").read_text().splitlines() == [str(digit) for digit in range(10)]
    facts = json.loads((exported / "assets.extra" / "export.json").read_text())
    assert facts["weights_sha256"] == weights_sha256(load_network(Run(trained)))
    assert facts["metrics"]["step"] == 6
    assert facts["versions"]["tensorflow"] == tf.__version__
    records = tf.data.TFRecordDataset(str(exported / "assets.extra" / "tf_serving_warmup_requests"))
    assert len(list(records)) == 3


def test_versions_count_up_and_an_interrupted_export_leaves_nothing(trained, exported, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    before = sorted(path.name for path in (trained / "export").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(export_module, "write_warmup_requests", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(Run(trained))
    assert sorted(path.name for path in (trained / "export").iterdir()) == before
    assert export(Run(trained)).name == str(int(before[-1]) + 1)


def test_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        export(Run(tmp_path))


def test_run_without_a_checkpoint_is_named(trained, tmp_path):
    (tmp_path / "config.json").write_bytes((trained / "config.json").read_bytes())
    with pytest.raises(InputError, match="holds no checkpoint yet"):
        export(Run(tmp_path))
