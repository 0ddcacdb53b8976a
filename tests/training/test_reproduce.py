"""The studies of the paper's claims: their network, their trials, and the command that takes them."""

import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_prelu import predict_gains
from training.__main__ import main
from training.errors import TrainingError
from training.reproduce import rectifiers
from training.reproduce.network import plain_network, start
from training.reproduce.runs import records_of, take_missing
from training.reproduce.studies import STUDIES
from training.reproduce.study import Study
from training.reproduce.take import rounded
from training.reproduce.train import train
from training.reproduce.trial import Trial

RESULTS = pathlib.Path(__file__).parents[2] / "docs/results"
NUMBER = r"-?\d+\.?\d*(?:e-?\d+)?"
TABLE_1 = ["conv1", *(f"conv2_{i}" for i in range(1, 5)), *(f"conv3_{i}" for i in range(1, 7)), "fc1", "fc2", "fc3"]


def kernels(network):
    return {layer.name: layer.kernel.numpy() for layer in network.layers if hasattr(layer, "kernel")}


def test_network_has_the_layers_of_table_1():
    assert list(kernels(plain_network((32, 32, 3), 10))) == TABLE_1


@pytest.mark.parametrize("depth", [14, 30, 100])
def test_depth_counts_the_layers_with_a_kernel(depth):
    network = plain_network((32, 32, 3), 10, depth=depth, filters=(2, 2, 2))
    assert len(kernels(network)) == depth
    assert sum(isinstance(layer, keras.layers.Layer) and "_rectifier" in layer.name for layer in network.layers) == (
        depth - 1
    )


def test_signals_keep_their_size_to_100_layers():
    """With the 2x2 kernels padded on one side by all, the mean square would be 1e-38 times as large."""
    network = plain_network((32, 32, 3), 10, depth=100, filters=(8, 8, 8))
    start(network, "he_forward", 0)
    last = predict_gains(network).rows[-1]
    assert 0.01 < last.forward_mean_square < 10


def test_convolutions_keep_the_size_of_their_stage():
    network = plain_network((32, 32, 3), 10, filters=(2, 2, 2))
    sizes = {layer.name: layer.output.shape[1] for layer in network.layers if isinstance(layer, keras.layers.Conv2D)}
    assert list(sizes.values()) == 5 * [16] + 6 * [8]


@pytest.mark.parametrize(
    ("rule", "std"),
    [
        ("he_forward", math.sqrt(2 / (1 + 0.25**2) / (2 * 2 * 64))),  # equation 15, with fan_in
        ("he_backward", math.sqrt(2 / (1 + 0.25**2) / (2 * 2 * 128))),  # with fan_out
        ("xavier", math.sqrt(1 / (2 * 2 * 64))),
        ("fixed_0.01", 0.01),
    ],
)
def test_start_draws_by_the_rule(rule, std):
    network = plain_network((32, 32, 3), 10, filters=(32, 64, 128))
    start(network, rule, seed=0)
    assert kernels(network)["conv3_1"].std() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("rule", ["he_forward", "he_backward", "xavier"])
def test_last_layer_starts_alike_in_all_rules(rule):
    network = plain_network((32, 32, 3), 10, filters=(32, 64, 128))
    start(network, rule, seed=0)
    assert kernels(network)["fc3"].std() == pytest.approx(math.sqrt(1 / 256), rel=0.05)


def test_start_of_another_seed_is_another():
    networks = [plain_network((32, 32, 3), 10, filters=(4, 4, 4)) for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        start(network, "xavier", seed)
    first, same, other = (kernels(network)["conv3_2"] for network in networks)
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_slopes_start_where_they_are_told():
    network = plain_network((32, 32, 3), 10, filters=(4, 4, 4))
    start(network, "he_forward", 0, slope=0.0)
    assert not network.get_layer("conv2_1_rectifier").alpha.numpy().any()


@pytest.mark.parametrize("name", STUDIES)
def test_trials_have_names_of_their_own(name):
    names = [trial.name for trial in STUDIES[name].trials()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", STUDIES)
def test_settings_survive_the_file(name):
    for trial in STUDIES[name].trials():
        assert json.loads(json.dumps(trial.settings)) == trial.settings


def test_numbers_that_json_lacks_are_text():
    found = rounded({"a": [math.inf, float("nan")], "b": (1.234567, 2, True, "x", None)})
    assert found == {"a": ["inf", "nan"], "b": [1.2346, 2, True, "x", None]}


@pytest.fixture(scope="module")
def settings():
    """A training of four steps on the digits."""
    recipe = {"dataset": "digits", "image_size": 32, "steps": 4, "batch_size": 8, "evaluate_every": 2, "log_every": 2}
    return {
        "network": {"filters": [2, 2, 2], "rectifier": "prelu", "slope_decay": 0.1},
        "start": {"rule": "he_forward", "slope": 0.5},
        "config": {
            **recipe,
            "checkpoint_every": 2,
            "warmup_steps": 0,
            "test_split": "test[:16]",
            "deterministic": False,
        },
    }


@pytest.mark.slow
def test_training_reports_curves_slopes_and_signals(settings, tmp_path):
    found = train(settings, tmp_path)
    assert [(event["event"], event["step"]) for event in found["events"]] == [
        *(("train", 2), ("evaluation", 2)),
        *(("train", 4), ("evaluation", 4)),
    ]
    assert [row["layer"] for row in found["slopes"]] == TABLE_1[:-1]
    assert [row["name"] for row in found["first_signals"]] == TABLE_1
    assert all(row["gradient_mean_square"] > 0 for row in found["last_signals"])


def test_record_of_other_settings_does_not_count(tmp_path):
    trial = Trial("few/one", {"size": 2})
    study = Study(claim="", trials=lambda: [trial], take=None, tables=dict, plots=dict)
    lines = [{"trial": "few/one", "settings": {"size": size}, "size": size} for size in (1, 2)]
    for records, expected in ((lines[:1], []), (lines, lines[1:])):
        (tmp_path / "few.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        assert records_of(study, tmp_path) == expected


def test_line_that_is_not_whole_does_not_count(tmp_path):
    trial = rectifiers.trials()[0]
    line = json.dumps({"trial": trial.name, "settings": trial.settings})
    (tmp_path / "rectifiers.jsonl").write_text(line)
    assert records_of(STUDIES["rectifiers"], tmp_path) == []
    (tmp_path / "rectifiers.jsonl").write_text(line + "\n")
    assert len(records_of(STUDIES["rectifiers"], tmp_path)) == 1


@pytest.mark.slow
def test_trial_without_data_ends_the_study_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    with pytest.raises(TrainingError, match=r"init/14-he_forward-relu-0 ended with status 2: .*cifar10") as error:
        take_missing("init", tmp_path / "work", jobs=1)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "work").glob("*.jsonl"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing"], "there is no study 'nothing'; there are init, rectifiers"),
        (["init", "--workdir", "/proc/none"], "/proc/none/init/.* cannot hold a trial: .*; name another --workdir"),
    ],
)
def test_wrong_input_is_one_line(argv, message, capsys):
    assert main(["reproduce", *argv]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_studies_are_listed(capsys):
    assert main(["reproduce"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(STUDIES)


def test_report_makes_every_page_and_plot_anew_from_the_records(tmp_path):
    pages = tmp_path / "results"
    shutil.copytree(RESULTS, pages)
    for name in (name for name, study in STUDIES.items() if records_of(study, RESULTS)):
        page = pages / f"{name}.md"
        page.write_text(
            re.sub(r"(<!-- (.+?): written by .*?-->\n).*?(<!-- end of \2 -->)", r"\1\3", page.read_text(), flags=re.S)
        )
        for plot in pages.glob(f"{name}*.svg"):
            plot.unlink()
    assert main(["reproduce", "report", "--workdir", str(pages)]) == 0
    for page in RESULTS.glob("*.md"):
        assert (pages / page.name).read_text() == page.read_text(), page.name
    for plot in RESULTS.glob("*.svg"):
        made, kept = (re.sub("Matplotlib v[^<]*", "", path.read_text()) for path in (pages / plot.name, plot))
        assert re.sub(NUMBER, "", made) == re.sub(NUMBER, "", kept), plot.name
        numbers = [np.array(re.findall(NUMBER, text), float) for text in (made, kept)]
        np.testing.assert_allclose(*numbers, atol=0.1, err_msg=plot.name)


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid):
    """Whether a process lives; one that ended and that nobody waited for has no command line."""
    line = pathlib.Path(f"/proc/{pid}/cmdline")
    return line.exists() and line.read_bytes() != b""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_study_leaves_no_trial_behind(number, status, tmp_path):
    """The signal comes while the trials import TensorFlow."""
    command = [sys.executable, "-m", "training", "reproduce", "init", f"--workdir={tmp_path}", "--jobs=2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"TFDS_DATA_DIR": str(tmp_path)})
    deadline = time.monotonic() + 60
    while len(found := children(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    assert len(found) == 2
    time.sleep(0.5)
    assert not any(map(runs, found))
