import dataclasses
import json

import numpy as np
import pytest

from training import loop
from training.errors import InputError, TrainingError
from training.loop import fit
from training.model import load_network
from training.run import Run


def test_run_folder_holds_what_is_promised(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {"config.json", "checkpoints", "tensorboard", "metrics.jsonl"}
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))
    events = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [(event["event"], event["step"]) for event in events] == [
        ("train", 2),
        ("evaluation", 3),
        ("train", 4),
        ("train", 6),
        ("evaluation", 6),
    ]


class StoppedError(Exception):
    """Stands for what ends a process at an arbitrary moment."""


@pytest.mark.parametrize("cpu_devices", [1, 2], ids=["on-one-device", "on-two-devices"])
def test_stopped_run_ends_with_the_weights_of_an_uninterrupted_one(
    trained, small_config, tmp_path, monkeypatch, cpu_devices
):
    make_train_step = loop.make_train_step

    def make_stopping_step(*args):
        step, calls = make_train_step(*args), []

        def stopping_step(batch):
            calls.append(batch)
            if len(calls) == 6:  # one step beyond the checkpoint of step 4
                raise StoppedError
            return step(batch)

        return stopping_step

    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_train_step", make_stopping_step)
        with pytest.raises(StoppedError):
            fit(small_config, tmp_path)
    fit(dataclasses.replace(small_config, cpu_devices=cpu_devices), tmp_path)
    for value, expected in zip(
        load_network(Run(tmp_path)).get_weights(), load_network(Run(trained)).get_weights(), strict=True
    ):
        np.testing.assert_allclose(value, expected, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 4, 6, 6]


def test_finished_run_is_left_as_it_is(trained, small_config, capfd):
    before = (trained / "metrics.jsonl").read_text()
    figures = fit(small_config, trained)
    assert (trained / "metrics.jsonl").read_text() == before
    assert figures["accuracy"] == json.loads(before.splitlines()[-1])["accuracy"]
    assert "resumed at step 6 of 6" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rate": 0.5},
            "holds a run with learning_rate=0.05, not 0.5: go on with the same, or name another",
        ),
        ({"test_split": "validation"}, "digits has no split 'validation'; it has test, train"),
        ({"dataset": "digit"}, r"no dataset 'digit' \(did you mean digits\?\)"),
        (
            {"dataset": "fashion_mnist"},
            "fashion_mnist is not prepared in .*; prepare it with `tfds build fashion_mnist --data_dir",
        ),
        ({"dataset": "image_folder"}, "image_folder needs a --data_dir"),
        ({"dataset": "image_folder", "data_dir": "/nowhere"}, "'/nowhere' is not one"),
        ({"data_dir": "/nowhere"}, "data_dir is '/nowhere', which is no folder"),
        ({"filters": (4, 4, 4, 4, 4)}, "must have at least 16x16 pixels, not 8x8"),
        ({"warmup_steps": 6}, "warmup_steps is 6, but must be below steps, 6"),
        ({"cpu_devices": 3}, "cpu_devices is 3, but TensorFlow already runs with fewer"),
    ],
    ids=[
        "other-config",
        "split",
        "dataset",
        "unprepared",
        "no-folder",
        "missing-folder",
        "missing-data-dir",
        "network",
        "warmup",
        "devices",
    ],
)
def test_what_cannot_work_is_named(trained, small_config, changes, message):
    with pytest.raises(InputError, match=message):
        fit(dataclasses.replace(small_config, **changes), trained)


def test_empty_image_folder_is_named(small_config, tmp_path):
    config = dataclasses.replace(small_config, dataset="image_folder", data_dir=str(tmp_path), image_size=16)
    with pytest.raises(InputError, match=r"holds no images at <split>/<class>/\*\.jpg"):
        fit(config, tmp_path / "run")


def test_work_folder_that_cannot_be_made_is_named(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot hold a run: Not a directory; name another --workdir"):
        fit(small_config, tmp_path / "file" / "run")


def test_loss_that_is_not_finite_stops_and_saves_nothing(small_config, tmp_path):
    config = dataclasses.replace(small_config, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 2"):
        fit(config, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("ckpt-*"))
