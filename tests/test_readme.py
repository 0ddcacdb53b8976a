"""The README and the pages on training do what they say; tests/serving has the pages on serving."""

import contextlib
import io
import pathlib
import re
import shlex
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

from tests.pages import blocks_of
from training.__main__ import main

# Mostly in one process, so without determinism, which could not be turned off again for other tests.
SHORT_RUN = [
    "--steps=2",
    "--warmup_steps=1",
    "--batch_size=64",
    "--filters=4",
    "--convolutions=1",
    "--deterministic=false",
]
TRAINING = ("data", "fit", "evaluate", "report", "export", "predict")  # tests/serving has the others


def training_commands():
    pages = ("README.md", "docs/train.md", "docs/several_machines.md")
    lines = [
        line.partition("  #")[0].strip() for page in pages for _, text in blocks_of(page) for line in text.splitlines()
    ]
    wanted = tuple(f"keras-prelu {name} " for name in TRAINING)
    return [*dict.fromkeys(line for line in lines if line.startswith(wanted))]


def test_layer_example_prints_what_the_readme_shows():
    code, printed = next(
        (first, second) for (_, first), (_, second) in pairwise(blocks_of("README.md")) if "initialize(" in first
    )
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, {})
    assert [line.rstrip() for line in output.getvalue().splitlines()] == [
        line.rstrip() for line in printed.splitlines()
    ]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of real images, scanned digits, with a folder for each class."""
    folder = tmp_path_factory.mktemp("photos")
    digits = sklearn.datasets.load_digits()
    for position, (image, label) in enumerate(zip(digits.images[:60], digits.target[:60], strict=True)):
        path = folder / f"digit {label}" / f"{position}.jpg"
        path.parent.mkdir(exist_ok=True)
        large = tf.image.resize(image[..., None] * 16, (96, 96)).numpy()
        path.write_bytes(tf.io.encode_jpeg(np.clip(large, 0, 255).astype(np.uint8)).numpy())
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_commands_work_in_their_order(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    pathlib.Path("photo.jpg").write_bytes(next(photos.glob("*/*.jpg")).read_bytes())
    for command in training_commands():
        arguments = shlex.split(command.replace("<folder>", str(photos)).removeprefix("keras-prelu "))
        arguments += SHORT_RUN if arguments[0] == "fit" else []
        if "--local_workers" in arguments:
            subprocess.run([sys.executable, "-m", "training", *arguments], check=True)
        else:
            assert main(arguments) == 0, command
    output = capsys.readouterr().out
    assert re.search(r"test accuracy [\d.]+% on digits, run in runs/digits$", output, re.MULTILINE)
    assert re.search(r"^photo.jpg +digit \d", output, re.MULTILINE)
    for made in (
        "sheet.png",
        "runs/digits/report.html",
        "runs/digits/export/1/saved_model.pb",
        "runs/shared/metrics.jsonl",
        "runs/workers/metrics.jsonl",
    ):
        assert pathlib.Path(made).is_file()
