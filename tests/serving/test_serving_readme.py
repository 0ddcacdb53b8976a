"""The README's section on serving does what it says."""

import io
import json
import pathlib
import re
import subprocess
from contextlib import redirect_stdout

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu.networks.small import small_network
from serving.batching.options import from_message
from serving.client.__main__ import main
from serving.flags import parse
from serving.repository import config as config_file
from serving.wire.protos import BatchingParameters, read_text
from training.classifier import Classifier
from training.config import Config
from training.export.signatures import make_signatures, save_model

pytestmark = pytest.mark.xdist_group("serving")

README = pathlib.Path(__file__).parents[2] / "README.md"
LABELS = tuple("0123456789")


@pytest.fixture(scope="module")
def blocks():
    """The section's blocks of code, each a language and a text."""
    section = README.read_text().partition("\n## serving")[2].partition("\n## ")[0]
    return re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def digits(tmp_path_factory, serve):
    """A server with an export as the demo makes it, but for the training."""
    keras.utils.set_random_seed(0)
    classifier = Classifier(small_network((8, 8, 1), 10), Config(dataset="digits"), LABELS, (8, 8, 1))
    base_path = tmp_path_factory.mktemp("digits")
    save_model(base_path / "1", make_signatures(classifier), [classifier.network])
    with serve(base_path, "digits") as server:
        yield server


def test_command_has_no_unknown_flag(blocks):
    (command,) = [text for _, text in blocks if text.startswith("python -m serving ")]
    assert parse(command.split()[3:]).unknown == []


@pytest.mark.slow
def test_commands_answer(blocks, digits, tmp_path):
    commands = "".join(text for language, text in blocks if not language and "curl" in text)
    script = commands.replace("localhost:8501", f"127.0.0.1:{digits.rest_port}")
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script.replace("curl ", "curl --silent --fail-with-body ")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    decoder, answers, rest = json.JSONDecoder(), [], done.stdout.strip()
    while rest:
        answer, end = decoder.raw_decode(rest)
        answers.append(answer)
        rest = rest[end:].strip()
    status, metadata, empty, digit, classified, as_it_is, sample = answers
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


def test_pictures_get_labels(blocks, digits, tmp_path, capsys):
    picture = tmp_path / "digit.png"
    picture.write_bytes(tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy())
    (command,) = [text for _, text in blocks if text.startswith("keras-prelu ask ")]
    arguments = command.replace("localhost:8500", f"127.0.0.1:{digits.grpc_port}").split()[2:]
    assert main([str(picture) if each == "digit.png" else each for each in arguments]) == 0
    assert "score" in capsys.readouterr().out


def run(code, server):
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code.replace("localhost:8500", f"127.0.0.1:{server.grpc_port}"), {})
    return printed.getvalue()


def test_files_are_read(blocks, tmp_path):
    models, batching = [text for language, text in blocks if language == "protobuf"]
    (tmp_path / "models").write_text(models)
    (tmp_path / "batching").write_text(batching)
    (config,) = config_file.read(str(tmp_path / "models"))
    assert (config.name, dict(config.labels)) == ("digits", {"stable": 1, "canary": 2})
    assert from_message(read_text(tmp_path / "batching", BatchingParameters)).max_batch_size == 32
