import json
import os
import subprocess
import sys

import pytest

from training.kernels import onednn_in_use
from training.train import _terms

CHOOSE = """
import json, pathlib, sys
from training.kernels import choose_onednn
stored, cache_dir, measured, devices = json.loads(sys.argv[1])
sys.executable = {executable!r}
print(choose_onednn(stored, pathlib.Path(cache_dir), measured, pathlib.Path(devices)))
"""


def start(command, **environment):
    """Runs a process that is not told which kernels to take, unless `environment` says so."""
    inherited = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    return subprocess.run(
        command, env={**inherited, **environment}, capture_output=True, text=True, timeout=400, check=True
    ).stdout.splitlines()


def choose(cache_dir, stored=None, measured=True, devices="", executable=sys.executable, **environment):
    script = CHOOSE.format(executable=executable)
    arguments = json.dumps([stored, str(cache_dir), measured, str(devices or cache_dir)])
    *said, choice = start([sys.executable, "-c", script, arguments], **environment)
    return said, json.loads(choice.lower().replace("none", "null"))


def test_both_sets_are_measured_once(tmp_path):
    said, measured = choose(tmp_path)
    ((key, remembered),) = json.loads((tmp_path / "kernels.json").read_text()).items()
    assert remembered is measured
    assert said[0].startswith(f"CPU kernels: {'oneDNN' if measured else 'TensorFlow'}'s")
    assert "TensorFlow 2." in key

    (tmp_path / "kernels.json").write_text(json.dumps({key: not measured, "another": 3}))
    assert choose(tmp_path, executable="/bin/false")[1] is not measured


def test_cache_that_cannot_be_written_only_costs_a_measurement(tmp_path):
    (tmp_path / "file").touch()
    assert choose(tmp_path / "file")[1] in (True, False)


def test_measurement_that_fails_leaves_the_choice_to_tensorflow(tmp_path):
    (tmp_path / "kernels.json").write_text("[1")  # damaged, and so as good as none
    said, choice = choose(tmp_path, executable="/bin/false")
    assert choice is None
    assert said == ["CPU kernels: TensorFlow's choice, for those there are could not be compared"]
    assert (tmp_path / "kernels.json").read_text() == "[1"


@pytest.mark.parametrize("stored", [True, False])
def test_run_keeps_what_it_began_with(tmp_path, stored):
    said, choice = choose(tmp_path, stored, measured=False)
    assert choice is stored
    assert said == [
        f"CPU kernels: {'oneDNN' if stored else 'TensorFlow'}'s{'' if stored else ' own'}, with which this run began"
    ]


def test_nothing_is_measured_where_something_else_decides(tmp_path):
    (tmp_path / "nvidia0").touch()
    assert choose(tmp_path, TF_ENABLE_ONEDNN_OPTS="0", CUDA_VISIBLE_DEVICES="") == ([], None)
    assert choose(tmp_path, measured=False, CUDA_VISIBLE_DEVICES="") == ([], None)
    assert choose(tmp_path, CUDA_VISIBLE_DEVICES="0") == ([], None)
    assert {path.name for path in tmp_path.iterdir()} == {"nvidia0"}


def test_workers_compare_their_kernels(small_config):
    assert _terms(small_config)["TF_ENABLE_ONEDNN_OPTS"] is onednn_in_use()


@pytest.mark.slow
def test_run_stores_its_kernels_and_takes_them_again(tmp_path):
    fit = [
        *(sys.executable, "-m", "training", "fit", "--config", "digits", "--workdir", str(tmp_path / "run")),
        *("--cache_dir", str(tmp_path), "--filters", "4", "--convolutions", "1", "--steps", "1", "--warmup_steps", "0"),
    ]
    start(fit)
    path = tmp_path / "run" / "config.json"
    stored = json.loads(path.read_text())
    assert [stored["onednn"]] == list(json.loads((tmp_path / "kernels.json").read_text()).values())

    path.write_text(json.dumps(stored | {"onednn": not stored["onednn"]}))
    said = start(fit)
    assert said[0].endswith("with which this run began")
    assert json.loads(path.read_text())["onednn"] is not stored["onednn"]
