"""The commands and the code of the README and of the pages on serving do what they say."""

import io
import json
from contextlib import redirect_stdout

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu.networks.small import small_network
from serving.batching.options import from_message
from serving.client.__main__ import main
from serving.repository import config as config_file
from serving.wire.protos import BatchingParameters, read_text
from tests.pages import blocks_of, printed_by
from training.classifier import Classifier
from training.config import Config
from training.export.signatures import make_signatures, save_model

pytestmark = pytest.mark.xdist_group("serving")

LABELS = tuple("0123456789")


@pytest.fixture(scope="module")
def blocks():
    return blocks_of("docs/train.md", "Ask the server")


@pytest.fixture(scope="module")
def digits(tmp_path_factory, serve):
    """A server with an export as the demo makes it, but for the training."""
    keras.utils.set_random_seed(0)
    classifier = Classifier(small_network((8, 8, 1), 10), Config(dataset="digits"), LABELS, (8, 8, 1))
    base_path = tmp_path_factory.mktemp("digits")
    save_model(base_path / "1", make_signatures(classifier), [classifier.network])
    with serve(base_path, "digits") as server:
        yield server


def answers_of(commands, server, folder):
    """The JSON objects that commands with curl print, one after the other."""
    decoder, answers, rest = json.JSONDecoder(), [], printed_by(commands, server, folder).strip()
    while rest:
        answer, end = decoder.raw_decode(rest)
        answers.append(answer)
        rest = rest[end:].strip()
    return answers


@pytest.mark.slow
def test_commands_answer(blocks, digits, tmp_path):
    commands = "".join(text for language, text in blocks if not language and "curl" in text)
    status, metadata, empty, digit, classified, as_it_is, sample = answers_of(commands, digits, tmp_path)
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    assert {"serving_default", "image_bytes", "classify"} <= set(metadata["metadata"]["signature_def"]["signature_def"])
    assert set(empty["predictions"][0]) == {"scores", "classes"}
    ((best, score), *_) = classified["results"][0]
    scores = digit["predictions"][0]["scores"]
    assert digit["predictions"][0]["classes"] == scores.index(max(scores)) == LABELS.index(best)
    assert score == pytest.approx(max(scores), rel=1e-6)
    assert as_it_is == digit
    assert len(sample["predictions"][0]["scores"]) == len(LABELS)


def test_python_answers(blocks, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digit.png").write_bytes(tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy())
    client, stub = [text for language, text in blocks if language == "python"]
    assert run(client, digits).count(".") == len(LABELS)
    assert run(stub, digits).count("float_val") == len(LABELS)


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "From images to an answer"), ("docs/train.md", "Ask the server")]
)
def test_images_get_labels(page, heading, digits, tmp_path, capsys):
    image = tmp_path / "digit.png"
    image.write_bytes(tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy())
    lines = [line for _, text in blocks_of(page, heading) for line in text.splitlines()]
    (command,) = [line for line in lines if line.startswith("keras-prelu ask ")]
    arguments = [str(image) if each in ("digit.png", "photo.jpg") else each for each in command.split()[2:]]
    assert main([*arguments, "--url", f"grpc://127.0.0.1:{digits.grpc_port}"]) == 0
    assert "score" in capsys.readouterr().out


def test_readme_asks_with_an_example(digits, tmp_path):
    lines = [line for _, text in blocks_of("README.md", "From images to an answer") for line in text.splitlines()]
    (answer,) = answers_of("\n".join(line for line in lines if line.startswith("curl ")), digits, tmp_path)
    assert set(answer["predictions"][0]) == {"scores", "classes"}


def run(code, server):
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code.replace("localhost:8500", f"127.0.0.1:{server.grpc_port}"), {})
    return printed.getvalue()


def test_files_are_read(tmp_path):
    ((_, models),) = blocks_of("docs/production.md", "Models")
    ((_, batching),) = blocks_of("docs/serving.md", "Batching")
    (tmp_path / "models").write_text(models)
    (tmp_path / "batching").write_text(batching)
    (config,) = config_file.read(str(tmp_path / "models"))
    assert (config.name, dict(config.labels)) == ("digits", {"stable": 1, "canary": 2})
    assert from_message(read_text(tmp_path / "batching", BatchingParameters)).max_batch_size == 32
