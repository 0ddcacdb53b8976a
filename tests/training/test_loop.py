import dataclasses
import json
import os
import signal

import keras
import numpy as np
import pytest

from tests.training.own_network import OWN
from training.classifier import load_network
from training.data.mean import MeanSubtraction
from training.errors import InputError, StoppedError, TrainingError
from training.evaluation.evaluate import evaluate_runs
from training.evaluation.views import Protocol
from training.experiment import Experiment
from training.export.export import export
from training.network import make_network
from training.run.folder import Run
from training.train import fit, steps_until_due


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


class KilledError(Exception):
    """Stands for what ends a process at an arbitrary moment."""


def before_step(monkeypatch, number, act):
    """Acts as that step is about to be taken."""
    make, calls = Experiment.train_step, []

    def train_step(experiment):
        step = make(experiment)

        def counted(batch):
            calls.append(batch)
            if len(calls) == number:
                act()
            return step(batch)

        return counted

    monkeypatch.setattr(Experiment, "train_step", train_step)


def kill():
    raise KilledError


def weights(folder):
    return load_network(Run(folder)).get_weights()


def assert_same_bits(folder, other):
    for value, expected in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.slow
@pytest.mark.parametrize("cpu_devices", [1, 2], ids=["on-one-device", "on-two-devices"])
def test_killed_run_goes_on_on_any_number_of_devices(trained, small_config, tmp_path, monkeypatch, cpu_devices):
    with monkeypatch.context() as patch:
        before_step(patch, 6, kill)  # one step beyond the checkpoint of step 4
        with pytest.raises(KilledError):
            fit(small_config, tmp_path)
    fit(dataclasses.replace(small_config, cpu_devices=cpu_devices), tmp_path)
    for value, expected in zip(weights(tmp_path), weights(trained), strict=True):
        np.testing.assert_allclose(value, expected, atol=0 if cpu_devices == 2 else 1e-6)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 4, 6, 6]


EVERYTHING = {
    "gradient_accumulation_steps": 2,
    "ema_decay": 0.9,
    "clip_norm": 0.5,
    "drop_factor": 2.0,
    "evaluate_every": 2,
    "label_smoothing": 0.1,
    "patience": 1,
    "schedule": "plateau",
    "weight_decay": 1e-3,
}


def state(folder, step=6):
    with np.load(folder / "checkpoints" / f"{step}.npz") as arrays:
        return dict(arrays)


@pytest.mark.slow
def test_whole_state_goes_on(small_config, tmp_path, monkeypatch):
    config = dataclasses.replace(small_config, batch_size=300, checkpoint_every=3, **EVERYTHING)
    fit(config, tmp_path / "alone")
    with monkeypatch.context() as patch:
        before_step(patch, 5, kill)
        with pytest.raises(KilledError):
            fit(config, tmp_path / "killed")
    fit(config, tmp_path / "killed")
    expected = state(tmp_path / "alone")
    assert {name.split("/")[0] for name in expected} == {
        "model",
        "optimizer",
        "average",
        "improvement",
        "step",
        "num_arrays",
    }
    np.testing.assert_equal(state(tmp_path / "killed"), expected)


@pytest.mark.slow
@pytest.mark.parametrize("killed_before", [3, 5])
def test_own_network_that_thaws_goes_on_to_the_bit(small_config, tmp_path, monkeypatch, killed_before):
    config = dataclasses.replace(
        small_config, network=OWN, optimizer="adamw", freeze="stem*", unfreeze_step=3, batch_size=300, ema_decay=0.5
    )
    fit(config, tmp_path / "alone")
    with monkeypatch.context() as patch:
        before_step(patch, killed_before, kill)
        with pytest.raises(KilledError):
            fit(config, tmp_path / "killed")
    fit(config, tmp_path / "killed")
    states = state(tmp_path / "killed"), state(tmp_path / "alone")
    for value, expected in zip(*(each.values() for each in states), strict=True):  # Keras counts layers in their names
        np.testing.assert_array_equal(value, expected)
    first = state(tmp_path / "alone", step=2)
    stem = next(name for name in first if name.endswith("stem/kernel") and name.startswith("model"))
    start = make_network(config, (8, 8, 1), 10)
    np.testing.assert_array_equal(first[stem].shape, start.get_layer("stem").kernel.shape)
    assert (states[1][stem] != first[stem]).any()  # thawed at step 3


@pytest.mark.slow
def test_finished_run_leaves_its_last_and_its_best_network(small_config, tmp_path):
    config = dataclasses.replace(small_config, network=OWN, steps=8, evaluate_every=1, learning_rate=0.5)
    fit(config, tmp_path)
    run = Run(tmp_path)
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 1)).astype("float32")
    last, best = keras.saving.load_model(run.model), keras.saving.load_model(run.best_model)
    np.testing.assert_array_equal(last(images), load_network(run)(images))
    evaluations = [event for event in run.events() if event["event"] == "evaluation"]
    accuracies = [event["accuracy"] for event in evaluations]
    with np.load(run.checkpoints / "best.npz") as arrays:
        assert int(arrays["step"]) == 1 + int(np.argmax(accuracies))
        kernel = next(value for name, value in arrays.items() if name.endswith("stem/kernel"))
    np.testing.assert_array_equal(best.get_layer("stem").kernel, kernel)
    assert {"loss", "accuracy", "top5_accuracy", "precision", "recall", "f1"} <= set(evaluations[0])


@pytest.mark.slow
def test_test_split_is_evaluated_once_where_another_one_is_while_training(small_config, tmp_path):
    config = dataclasses.replace(small_config, train_split="train[:80%]", val_split="train[80%:]")
    fit(config, tmp_path)
    events = [(event["event"], event["step"]) for event in Run(tmp_path).events() if event["event"] != "train"]
    assert events == [("evaluation", 3), ("evaluation", 6), ("test", 6)]
    *_, test = Run(tmp_path).events()
    assert test["accuracy"] == pytest.approx(1 - evaluate_runs([Run(tmp_path)], Protocol())["top1_error"])


@pytest.mark.slow
def test_run_that_no_longer_improves_ends_early_and_stays_ended(small_config, tmp_path):
    config = dataclasses.replace(small_config, learning_rate=0.0, evaluate_every=1, steps=50, early_stopping=2)
    fit(config, tmp_path)
    assert [event["step"] for event in Run(tmp_path).events() if event["event"] == "evaluation"] == [1, 2, 3]
    fit(config, tmp_path)
    assert Run(tmp_path).last_evaluation()["step"] == 3
    assert Run(tmp_path).model.exists()


@pytest.mark.slow
def test_run_goes_on_without_the_file_its_network_came_from(small_config, tmp_path):
    make_network(dataclasses.replace(small_config, network=OWN), (8, 8, 1), 10).save(tmp_path / "own.keras")
    config = dataclasses.replace(small_config, network=str(tmp_path / "own.keras"), steps=4)
    fit(config, tmp_path / "run")
    (tmp_path / "own.keras").unlink()
    fit(dataclasses.replace(config), tmp_path / "run")
    assert load_network(Run(tmp_path / "run")).name == "normalized"


@pytest.mark.slow
def test_network_from_a_file_subtracts_the_mean_once_after_a_resume(small_config, tmp_path):
    make_network(dataclasses.replace(small_config, network=OWN), (8, 8, 1), 10).save(tmp_path / "own.keras")
    config = dataclasses.replace(small_config, network=str(tmp_path / "own.keras"), subtract_mean=True, steps=4)
    fit(config, tmp_path / "run")
    network = load_network(Run(tmp_path / "run"))
    assert [type(layer) for layer in network.layers].count(MeanSubtraction) == 1
    fit(config, tmp_path / "run")


@pytest.mark.slow
def test_several_steps_a_call_leave_the_same(trained, small_config, tmp_path):
    fit(dataclasses.replace(small_config, steps_per_execution=4), tmp_path)
    for value, expected in zip(weights(tmp_path), weights(trained), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 4, 6, 6]


@pytest.mark.slow
def test_epochs_decide_the_steps_and_the_evaluations(small_config, tmp_path):
    config = dataclasses.replace(small_config, steps=1, epochs=2, evaluate_every=0)  # an epoch has 2 steps
    fit(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "evaluation"] == [2, 4]
    assert Run(tmp_path).read()[0].steps == 4


@pytest.mark.parametrize(
    ("step", "steps_per_execution", "expected"),
    [(0, 1, 1), (0, 10, 2), (2, 10, 1), (3, 10, 1), (5, 10, 1), (99, 10, 1)],
)
def test_call_ends_where_something_is_due(small_config, step, steps_per_execution, expected):
    config = dataclasses.replace(small_config, steps=100, steps_per_execution=steps_per_execution)
    assert steps_until_due(config, step) == expected


@pytest.mark.slow
def test_sigterm_saves_at_the_next_step_and_tells_how_to_go_on(trained, small_config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        before_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError, match="stopped at step 3 of 6, which is saved; the same command resumes"):
            fit(small_config, tmp_path)
    assert (tmp_path / "checkpoints" / "3.npz").exists()
    fit(small_config, tmp_path)
    assert_same_bits(tmp_path, trained)


@pytest.mark.slow
def test_folder_in_use_is_refused_for_training_and_free_for_reading(trained, small_config, tmp_path, monkeypatch):
    def look():
        with pytest.raises(InputError, match=f"lock is held by process {os.getpid()} on"):
            fit(small_config, tmp_path)
        looked.append(export(Run(tmp_path)).name)
        monkeypatch.undo()

    looked = []
    with monkeypatch.context() as patch:
        before_step(patch, 4, look)
        fit(small_config, tmp_path)
    assert looked == ["1"]
    assert_same_bits(tmp_path, trained)


@pytest.mark.slow
def test_full_disk_ends_in_one_line_and_the_run_goes_on_later(trained, small_config, tmp_path, largest_file):
    with largest_file(6_000), pytest.raises(TrainingError, match=r"File too large; .* the same command resumes"):
        fit(small_config, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*.npz"))
    fit(small_config, tmp_path)
    assert_same_bits(tmp_path, trained)


@pytest.mark.slow
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
            "holds a run with learning_rate=0.05, not 0.5: resume with the same, or name another",
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
