"""MLflow and Weights & Biases in their offline modes: what they hold of a run afterwards."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys

import mlflow
import pytest

from training.config import Config
from training.errors import InputError
from training.run.trackers import check_tracker, tracked
from training.train import fit


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A store of MLflow's in files, and Weights & Biases without a network."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path}/mlruns")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    return folder


def run_id(folder, tracker):
    return json.loads((folder / "trackers.json").read_text())[tracker]


def test_mlflow_has_the_figures_and_the_config(store, folder):
    with tracked(Config(tracker="mlflow", batch_size=96), folder) as log:
        log(2, {"train/loss": 1.5, "train/accuracy": 0.25})
        log(4, {"train/loss": 1.25})
    run = store.get_run(run_id(folder, "mlflow"))
    assert (run.info.run_name, run.info.status) == ("digits", "FINISHED")
    assert run.data.params["batch_size"] == "96"
    assert run.data.params.keys() == {field.name for field in dataclasses.fields(Config)}
    history = store.get_metric_history(run.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in history] == [(2, 1.5), (4, 1.25)]


def test_mlflow_has_the_figures_in_order(store, folder):
    names = [f"{number}/loss" for number in range(20)]  # each has a folder of its own in MLflow's store
    with tracked(Config(tracker="mlflow"), folder) as log:
        for name in names:
            log(2, {name: 1.0})
            log(4, {name: 1.0})
    run = run_id(folder, "mlflow")
    assert [[each.step for each in store.get_metric_history(run, name)] for name in names] == [[2, 4]] * 20


def test_mlflow_goes_on_with_the_same_run(store, folder):
    for step, log_every in ((2, 50), (4, 10)):
        with tracked(Config(tracker="mlflow", log_every=log_every), folder) as log:
            log(step, {"train/loss": 1.0})
    (run,) = store.search_runs(["0"])
    assert [each.step for each in store.get_metric_history(run.info.run_id, "train/loss")] == [2, 4]


def test_mlflow_knows_of_a_run_that_failed(store, folder):
    with pytest.raises(ZeroDivisionError), tracked(Config(tracker="mlflow"), folder):
        raise ZeroDivisionError
    assert store.get_run(run_id(folder, "mlflow")).info.status == "FAILED"


def test_error_while_tracking_is_one_line_and_not_the_runs(store, folder, capsys):
    with tracked(Config(tracker="mlflow"), folder) as log:
        log(1, {"train/loss": 1.0})
        mlflow.flush_async_logging()
        store.delete_run(run_id(folder, "mlflow"))
    assert re.fullmatch(
        r"training: mlflow tracks this run no more: The run .+ must be in .+\n", capsys.readouterr().err
    )


def test_a_store_that_cannot_be_reached_is_one_line(store, folder):
    mlflow.set_tracking_uri("no-such-scheme://host")
    with (
        pytest.raises(InputError, match=r"^mlflow cannot track this run: .+") as error,
        tracked(Config(tracker="mlflow"), folder),
    ):
        pass
    assert "\n" not in str(error.value)


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tracker=wandb needs wandb, which is not installed; .*\.\[wandb\]'"):
        check_tracker("wandb")


def test_without_a_tracker_none_is_loaded(folder):
    loaded = set(sys.modules)
    with tracked(Config(), folder) as log:
        log(1, {"train/loss": 1.0})
    assert set(sys.modules) == loaded
    assert list(folder.iterdir()) == []


WANDB = """
import pathlib, sys
from training.config import Config
from training.run.trackers import tracked
with tracked(Config(tracker="wandb", batch_size=96), pathlib.Path(sys.argv[1])) as log:
    log(2, {"train/loss": 1.5})
    log(4, {"train/loss": 1.25, "evaluation/accuracy": 0.5})
"""


@pytest.mark.slow
def test_wandb_has_the_figures_and_the_config_and_goes_on_with_the_same_run(folder):
    """In a process of its own: Weights & Biases starts others."""
    environment = {**os.environ, "WANDB_MODE": "offline"}
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "-c", WANDB, str(folder)], env=environment, capture_output=True, text=True, timeout=120
        )
        assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        assert path.stem == f"run-{run_id(folder, 'wandb')}"
        content = path.read_bytes()
        for text in (b"train/loss", b"evaluation/accuracy", b"1.25", b"batch_size", b"96"):
            assert text in content
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2


@pytest.mark.slow
def test_a_run_sends_what_it_writes_to_its_own_files(store, small_config, tmp_path):
    folder = tmp_path / "run"
    fit(dataclasses.replace(small_config, tracker="mlflow"), folder)
    run = store.get_run(run_id(folder, "mlflow"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines
    for line in lines:
        event, step = line.pop("event"), line.pop("step")
        for name, value in line.items():
            history = store.get_metric_history(run.info.run_id, f"{event}/{name}")
            assert [each.value for each in history if each.step == step] == [value]
