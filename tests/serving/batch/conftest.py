"""An export with the three signatures of the contract, images, and the command in this process."""

import signal

import numpy as np
import pyarrow.dataset
import pytest
import tensorflow as tf
from PIL import Image

from serving.batch import command

LABELS = ("red", "green", "blue")


class Colours(tf.Module):
    """Scores of an image's three colours, from its mean pixel."""

    def __init__(self, labels_file):
        self.labels = tf.saved_model.Asset(str(labels_file))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")])
    def pixels(self, images):
        scores = tf.nn.softmax(tf.reduce_mean(images, (1, 2)) / 10)
        return {"scores": scores, "classes": tf.argmax(scores, -1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes):
        return self.pixels(tf.map_fn(_decode, image_bytes, fn_output_signature=tf.TensorSpec([8, 8, 3], tf.float32)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        parsed = tf.io.parse_example(inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        values, indices = tf.math.top_k(self.image_bytes(parsed["image/encoded"])["scores"], 2)
        return {"classes": tf.gather(tf.constant(LABELS), indices), "scores": values}


def _decode(encoded):
    return tf.cast(tf.ensure_shape(tf.io.decode_image(encoded, 3, expand_animations=False), [8, 8, 3]), tf.float32)


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    base_path = tmp_path_factory.mktemp("colours")
    (base_path / "labels.txt").write_text("\n".join(LABELS))
    model = Colours(base_path / "labels.txt")
    signatures = {"serving_default": model.pixels, "image_bytes": model.image_bytes, "classify": model.classify}
    tf.saved_model.save(model, str(base_path / "3"), signatures)
    (base_path / "labels.txt").unlink()
    return base_path


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Ten PNGs in two folders."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(10):
        path = folder / "ab"[number // 5] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="session")
def encoded(photos):
    return [path.read_bytes() for path in sorted(photos.rglob("*.png"))]


@pytest.fixture
def batch(tmp_path, capsys):
    """Runs the command into `tmp_path / "out"`. Returns its status and what it wrote on standard error."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments):
        status = command.main([*map(str, arguments), "--output", str(tmp_path / "out")])
        return status, capsys.readouterr().err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def rows(tmp_path):
    """The rows of all parts, in order."""
    return lambda: pyarrow.dataset.dataset(sorted(map(str, (tmp_path / "out").glob("part-*")))).to_table().to_pylist()
