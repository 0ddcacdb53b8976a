"""The commands as a user types them: one line on standard error, and the exit status."""

import dataclasses
import pathlib
import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from training.__main__ import application, main
from training.arguments import as_options, with_values
from training.config import Config, default_workdir, load_config, named_configs
from training.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit --config digit --workdir W", "there is no config 'digit' (did you mean digits?)"),
        ("fit --config digits --workdir W --stepz 3", "Unknown option: --stepz. Did you mean --steps?"),
        ("fit --config digits --workdir W --average 0.9", "Unknown option: --average. It is --ema_decay now; "),
        ("fit --config digits --workdir W --steps=x", 'Invalid value for --steps: unable to convert "x" into int; '),
        (
            "fit --config digits --workdir W --filters 8;16",
            "--filters: '8;16', but must be numbers with commas, as 32,64",
        ),
        ("fit --config digits --workdir W --flip perhaps", "Unused Tokens: ['perhaps']"),
        ("fit --config digits --workdir W --schedule poly", 'Choose from: "cosine", "linear", "steps", "plateau"'),
        ("fit --config digits --workdir W --momentum 1", "momentum is 1.0, but must be at least 0 and below 1"),
        ("fit --config digits --workdir W 3", "Unused Tokens: ['3']"),
        ("fit", "parameter --config requires an argument; `python -m training fit --help` lists"),
        ("fit W/config.json", "there is no config"),
        ("predict W", "there is no image to classify; give the folder of a run, and then image files"),
        ("predict", "there is no image to classify"),
        ("fit --config digits --workdir W --dataset no_such_set", "knows no dataset 'no_such_set'"),
        ("export --workdir W", "holds no run"),
        ("export --workdir W --steps 3", "Unknown option: --steps"),
        ("fit --config digits --workdir W --local_workers 0", "local_workers is 0, but must be at least 1"),
        ("fit --config digits --workdir W --local_workers two", '--local_workers: unable to convert "two" into int'),
        ("fly", 'Unknown command "fly"'),
        ("evaluate --run W --views tin", 'Did you mean "ten"?'),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, message, tmp_path, capfd):
    assert main(arguments.replace("W", str(tmp_path / "run")).split()) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("fit digits --seed 1", "fit --config digits --seed 1"),
        ("evaluate runs/a runs/b --views ten", "evaluate --run runs/a runs/b --views ten"),
        ("export runs/a --keep 2", "export --workdir runs/a --keep 2"),
        ("export runs/a", "export --run runs/a"),
        ("report runs/a", "report --workdir runs/a"),
    ],
)
def test_a_config_or_a_run_needs_no_option(short, long):
    (_, first, _), (_, second, _) = (application(Config()).parse_args(words.split()) for words in (short, long))
    assert first.arguments == second.arguments


@pytest.mark.parametrize(
    ("config", "workdir"),
    [("digits", "runs/digits"), ("configs/mine.py", "runs/mine"), ("configs/mine.py:large", "runs/large")],
)
def test_the_run_of_a_config_has_its_name(config, workdir):
    assert default_workdir(config) == pathlib.Path(workdir)


def test_the_config_of_a_run_needs_a_workdir():
    with pytest.raises(InputError, match=r"runs/a/config\.json is the config of a run; .* --workdir"):
        default_workdir("runs/a/config.json")


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow_datasets", "tqdm"])
def test_missing_package_is_one_line_with_what_brings_it(monkeypatch, capfd, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert main(["fit", "--config", "digits", "--workdir", "run"]) == 2
    assert capfd.readouterr().err == (
        f"training: the trainer needs {package}, which is not installed; in a clone of keras_prelu, "
        "pip install -e '.[training]' brings it\n"
    )


def test_missing_command_line_library_is_one_line_too():
    script = "import runpy, sys; sys.modules['cyclopts'] = None; runpy.run_module('training', run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "training: the trainer needs cyclopts, which is not installed; in a clone of keras_prelu, "
        "pip install -e '.[training]' brings it\n"
    )


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--steps 20_000", "steps", 20_000),
        ("--learning_rate=3e-3", "learning_rate", 0.003),
        ("--flip", "flip", True),
        ("--flip true", "flip", True),
        ("--deterministic False", "deterministic", False),
        ("--flip=0", "flip", False),
        ("--filters 8,16,32", "filters", (8, 16, 32)),
        ("--dataset fashion_mnist", "dataset", "fashion_mnist"),
        ("--steps 3 --steps 4", "steps", 4),
    ],
)
def test_field_is_set_by_an_option(words, field, value):
    _, given, _ = application(Config()).parse_args(
        with_values(["fit", "--config", "digits", "--workdir", "run", *words.split()])
    )
    assert given.kwargs[field] == value
    again = as_options({field: value})
    _, given, _ = application(Config()).parse_args(["fit", "--config", "digits", "--workdir", "run", *again])
    assert given.kwargs[field] == value


@pytest.mark.parametrize(
    "words", ["fit --config cifar10 --help", "fit --config=cifar10 --help", "fit cifar10 --help", "data cifar10 --help"]
)
def test_help_shows_the_configs_own_defaults_in_groups(capsys, words):
    assert main(words.split()) == 0
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for field in dataclasses.fields(Config):
        assert f"--{field.name} " in shown.replace("--gradient_accumulation_step ", "--gradient_accumulation_steps ")
    assert f"[default: {','.join(map(str, load_config('cifar10').filters))}]" in shown
    assert all(f"─ {group} ─" in shown for group in ("Data", "Augmentation", "Network", "Optimizer", "Hardware", "Run"))


def test_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"keras_prelu {metadata.version('keras_prelu')}\n"


def test_configs_are_listed(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(named_configs())
    assert any(re.match(r"digits +digits +small +Handwritten digits, 8x8 pixels$", line) for line in lines)


def test_help_needs_no_tensorflow():
    script = "import sys, training.__main__ as m; m.main(['fit', '--help']); sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, timeout=120)


def test_environment_that_describes_no_cluster_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "nonsense")
    assert main(["fit", "--config", "digits", "--workdir", str(tmp_path)]) == 2
    assert "TF_CONFIG cannot be read" in capfd.readouterr().err


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
