"""The commands as a user types them: one line on standard error, and the exit status."""

import subprocess
import sys

import numpy as np
import pytest

from training.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit --config digit --workdir W", "there is no config 'digit' (did you mean digits?)"),
        ("fit --config digits --workdir W --stepz 3", "there is no field 'stepz' (did you mean steps?)"),
        ("fit --config digits --workdir W --steps=x", "steps is 'x', but must be a whole number"),
        ("fit --config digits --workdir W 3", "unexpected argument '3'"),
        ("fit --config digits", "the following arguments are required: --workdir"),
        ("fit --config digits --workdir W --dataset no_such_set", "knows no dataset 'no_such_set'"),
        ("export --workdir W", "holds no run"),
        ("export --workdir W --steps 3", "unknown argument --steps"),
        ("fit --config digits --workdir W --local_workers 0", "local_workers is 0, but must be at least 1"),
        ("fit --config digits --workdir W --local_workers two", "argument --local_workers: invalid int value: 'two'"),
        ("fly", "invalid choice: 'fly'"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, message, tmp_path, capfd):
    assert main(arguments.replace("W", str(tmp_path / "run")).split()) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow_datasets", "tqdm"])
def test_missing_package_is_one_line_with_what_brings_it(monkeypatch, capfd, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert main(["fit", "--config", "digits", "--workdir", "run"]) == 2
    assert capfd.readouterr().err == (
        f"training: the trainer needs {package}, which is not installed; in a clone of keras_prelu, "
        "pip install -e '.[training]' brings it\n"
    )


def test_help_lists_every_field(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    assert "--crop_padding (int, default 0)" in capsys.readouterr().out


def test_environment_that_describes_no_cluster_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "nonsense")
    assert main(["fit", "--config", "digits", "--workdir", str(tmp_path)]) == 2
    assert "TF_CONFIG is not JSON" in capfd.readouterr().err


@pytest.mark.slow
def test_run_is_repeated_from_what_is_stored(trained, tmp_path, capfd):
    assert main(["fit", "--config", str(trained / "config.json"), "--workdir", str(tmp_path)]) == 0
    assert (tmp_path / "metrics.jsonl").read_text().count("evaluation") == 2
    with np.load(tmp_path / "checkpoints" / "6.npz") as ours, np.load(trained / "checkpoints" / "6.npz") as theirs:
        np.testing.assert_equal(dict(ours), dict(theirs))


@pytest.mark.slow
def test_process_says_one_line(tmp_path):
    command = [sys.executable, "-m", "training", "fit", "--config", "digits", "--workdir", str(tmp_path)]
    result = subprocess.run([*command, "--dataset", "no_such_set"], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("training: tensorflow-datasets knows no dataset 'no_such_set'")
    assert result.stderr.count("\n") == 1
