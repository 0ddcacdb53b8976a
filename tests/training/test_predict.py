"""Predictions for image files: answers, a table, JSON lines, and one line for each unreadable file."""

import io
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from training.__main__ import main
from training.classifier import load_network
from training.config import Config
from training.data.datasets import open_image_set
from training.data.preprocessing import decode_image
from training.errors import InputError
from training.evaluation.predict import predict
from training.network import make_network
from training.run.checkpoint import Checkpoints
from training.run.folder import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digit(tmp_path_factory, data_dir):
    """An image of the test split, as a file."""
    path = tmp_path_factory.mktemp("images") / "digit.png"
    path.write_bytes(next(open_image_set("digits", str(data_dir)).encoded("test").as_numpy_iterator())[0])
    return path


def keras_scores(trained, path):
    pixels = decode_image(path.read_bytes(), (8, 8, 1))
    return tf.nn.softmax(load_network(Run(trained))(pixels[None]))[0].numpy()


def encode(image, image_format):
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()


def photo(mode):
    """A smooth grey image of 60 x 45 pixels; in 16 bits, 257 times as bright."""
    smooth = np.add.outer(np.linspace(0, 120, 45), np.linspace(0, 120, 60)).astype(np.uint8)
    if mode == "I;16":
        return PIL.Image.fromarray(smooth.astype(np.uint16) * 257)
    return PIL.Image.fromarray(smooth).convert(mode)


def run_predict(trained, *arguments):
    return main(["predict", "--run", str(trained), *map(str, arguments)])


def test_answers_are_the_networks_best_labels_with_their_scores(trained, digit):
    (found,) = predict(Run(trained), [digit], top=3)
    expected = keras_scores(trained, digit)
    best = np.argsort(-expected)[:3]
    assert [label for label, _ in found.answers] == [str(place) for place in best]
    np.testing.assert_allclose([score for _, score in found.answers], expected[best], atol=1e-6)


def test_no_more_answers_than_labels(trained, digit):
    (found,) = predict(Run(trained), [digit], top=99)
    assert len(found.answers) == 10
    assert sum(score for _, score in found.answers) == pytest.approx(1)


def test_table_names_each_image_once(trained, digit, capsys):
    assert run_predict(trained, "--top", "2", digit, digit) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "label", "score"]
    first, score = keras_scores(trained, digit).argmax(), keras_scores(trained, digit).max()
    assert lines[1].split() == lines[3].split() == [str(digit), str(first), f"{score:.3g}"]
    assert len(lines[2].split()) == len(lines[4].split()) == 2
    assert len(lines) == 5


def test_json_has_a_line_for_each_image_those_that_cannot_be_read_too(trained, digit, capsys):
    assert run_predict(trained, "--json", "--top", "2", digit, "missing.jpg", digit) == 2
    first, missing, last = map(json.loads, capsys.readouterr().out.splitlines())
    expected = np.sort(keras_scores(trained, digit))[::-1][:2]
    np.testing.assert_allclose([answer["score"] for answer in first["answers"]], expected, atol=1e-6)
    assert first == last
    assert first["path"] == str(digit)
    assert missing == {"path": "missing.jpg", "error": "missing.jpg cannot be read: No such file or directory"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jpg", None, "missing.jpg cannot be read: No such file or directory"),
        (".", None, "cannot be read: Is a directory"),
        ("empty.jpg", b"", "empty.jpg cannot be decoded: it is damaged"),
        (
            "text.jpg",
            b"no image at all",
            "text.jpg cannot be decoded: it is damaged, or not a JPEG, PNG, GIF or BMP image",
        ),
        ("cut.jpg", encode(photo("RGB"), "JPEG")[:300], "cut.jpg cannot be decoded: it is damaged"),
        ("cut.png", encode(photo("RGB"), "PNG")[:100], "cut.png cannot be decoded: it is damaged"),
        ("photo.jpg", encode(photo("RGB"), "TIFF"), "photo.jpg cannot be decoded: it is damaged, or not a JPEG"),
    ],
    ids=["missing", "folder", "empty", "text", "cut-jpeg", "cut-png", "tiff"],
)
def test_image_that_cannot_be_read_is_one_line_and_the_others_are_answered(
    trained, digit, tmp_path, capfd, name, content, message
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert run_predict(trained, "--top", "1", path, digit) == 2
    output, error = capfd.readouterr()
    assert output.splitlines()[1].split()[:2] == [str(digit), str(keras_scores(trained, digit).argmax())]
    assert error.startswith(f"training: {tmp_path}")
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def of_colours(tmp_path_factory):
    """A run of a network that takes photos of three channels, as its first weights are."""
    config = Config(dataset="image_folder", image_size=24, filters=(4, 8), convolutions=1)
    run = Run(tmp_path_factory.mktemp("of_colours"))
    run.start(config, ("dark", "light"), (24, 24, 3), ["CPU:0"])
    with Checkpoints(run.checkpoints, make_network(config, (24, 24, 3), 2)) as checkpoints:
        checkpoints.save(1)
    return run


@pytest.mark.parametrize(
    ("mode", "image_format", "tolerance"),
    [
        ("RGB", "PNG", 0),
        ("L", "PNG", 0),
        ("I;16", "PNG", 0),
        ("RGBA", "PNG", 0),
        ("L", "JPEG", 5e-4),
        ("RGB", "JPEG", 5e-4),
        ("CMYK", "JPEG", 5e-4),
        ("P", "GIF", 0),
        ("RGB", "BMP", 0),
    ],
)
def test_image_of_any_kind_gets_the_same_answer(of_colours, tmp_path, mode, image_format, tolerance):
    """But for what JPEG loses: that moves scores by 3e-4, a negative by 4e-3. The file's name tells nothing."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo(mode), image_format))
    exact = tmp_path / "exact.png"
    exact.write_bytes(encode(photo("L"), "PNG"))
    expected, found = predict(of_colours, [exact, path], top=2)
    assert found.error == ""
    for label, score in found.answers:
        assert score == pytest.approx(dict(expected.answers)[label], abs=tolerance + 1e-6)


def test_number_of_answers_below_1_is_refused(trained, digit):
    with pytest.raises(InputError, match="top is 0, but must be at least 1"):
        list(predict(Run(trained), [digit], top=0))


def test_folder_without_a_run_is_one_line(tmp_path, digit, capfd):
    assert run_predict(tmp_path, digit) == 2
    error = capfd.readouterr().err
    assert "holds no run" in error
    assert error.count("\n") == 1
