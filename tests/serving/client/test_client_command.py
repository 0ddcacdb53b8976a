"""`keras-prelu ask`, and that neither it nor the package needs TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving.client.__main__ import main

pytestmark = pytest.mark.xdist_group("serving")

STRINGS = tf.TensorSpec([None], tf.string)


def reds(encoded):
    """The red and the blue of the first pixel of each image, in 0..1."""
    decode = lambda each: tf.cast(tf.io.decode_png(each, channels=3)[0, 0], tf.float32) / 255  # noqa: E731
    pixels = tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec([3], tf.float32))
    return tf.stack([pixels[:, 2], pixels[:, 0]], axis=1)


class Colours(tf.Module):
    """Says whether an image is blue or red, in the two ways that models have."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        parsed = tf.io.parse_example(inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        scores = reds(parsed["image/encoded"])
        return {"classes": tf.tile([["blue", "red"]], [tf.shape(scores)[0], 1]), "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes):
        return {"scores": reds(image_bytes)}


@pytest.fixture(scope="module")
def colours(tmp_path_factory, serve):
    folder = tmp_path_factory.mktemp("colours")
    module = Colours()
    signatures = {"classify": module.classify, "image_bytes": module.image_bytes}
    tf.saved_model.save(module, str(folder / "1"), signatures)
    with serve(folder, "colours") as server:
        yield server


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "red.png"
    Image.new("RGB", (2, 2), (255, 0, 51)).save(path)
    return path


@pytest.fixture(params=["grpc", "rest"])
def ask(request, colours, url_of):
    def run(*arguments):
        return main([*map(str, arguments), f"--url={url_of(colours, request.param)}", "--model=colours"])

    return run


def test_table_of_labels(ask, red, capsys):
    assert ask(red, red) == 0
    width = len(str(red))
    assert capsys.readouterr().out.splitlines() == [
        f"{'image':<{width}}  label  score",
        f"{red}  red        1",
        f"{'':<{width}}  blue     0.2",
        f"{red}  red        1",
        f"{'':<{width}}  blue     0.2",
    ]


def test_scores_alone_get_labels_from_a_file(ask, red, capsys, tmp_path):
    (tmp_path / "labels.txt").write_text("sea\nfire\n")
    assert ask(red, "--signature=image_bytes", "--top=1", "--labels", tmp_path / "labels.txt", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(red), "answers": [{"label": "fire", "score": 1.0}]}
    assert ask(red, "--signature=image_bytes", "--top=1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["answers"] == [{"label": "1", "score": 1.0}]


def test_files_that_are_no_images_are_reported_and_passed(ask, red, capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    assert ask(tmp_path / "nothing.png", tmp_path / "notes.txt", red, "--top=1") == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    missing, refused = err.splitlines()
    assert missing == f"keras-prelu ask: {tmp_path}/nothing.png cannot be read: No such file or directory"
    assert refused.startswith(f"keras-prelu ask: {tmp_path}/notes.txt was refused: ")


def test_signature_and_version_that_are_not_there(ask, red, capsys):
    assert ask(red, "--signature=other") == 2
    assert (
        capsys.readouterr().err == "keras-prelu ask: there is no signature other; the model has classify, image_bytes\n"
    )
    assert ask(red, "--version=7") == 1
    assert capsys.readouterr().err.startswith("keras-prelu ask: NOT_FOUND: Servable not found")


def test_pixels_of_a_file(open_client, url_of, server, red):
    with open_client("grpc", url_of(server, "grpc"), "zoo") as client:
        pixels = client.predict(red, signature="identity").outputs["y"]
    np.testing.assert_array_equal(pixels, np.full((2, 2, 3), [255, 0, 51], np.float32))


def test_wrong_arguments(capsys, red, tmp_path):
    assert main([str(red), "--url=localhost:8500"]) == 2
    assert main([str(red), f"--ca={tmp_path}/nothing.pem", "--url=https://localhost"]) == 2
    assert "give grpc://host:8500" in capsys.readouterr().err


PROGRAM = """
import sys, time
started = time.process_time()
import serving.client
print(time.process_time() - started)
from serving.client.__main__ import main
status = main(sys.argv[1:])
assert not [name for name in sys.modules if name.partition(".")[0] in ("tensorflow", "keras", "tensorflow_serving")]
sys.exit(status)
"""


def test_neither_package_nor_command_imports_tensorflow(colours, url_of, red):
    arguments = [red, "--model=colours", f"--url={url_of(colours, 'grpc')}", "--top=1"]
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    seconds, *table = ran.stdout.splitlines()
    assert float(seconds) < 2  # 0.3 on a machine that does nothing else; TensorFlow takes four
    assert table[1].endswith("red        1")
