"""The demo from a user's side: its whole length, and Ctrl-C in each of its phases."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from training.__main__ import main

pytestmark = pytest.mark.xdist_group("demo")  # they share a run

DEMO = pathlib.Path(__file__).parent.parent / "examples" / "demo.py"
SHORT = ["--steps=60", "--filters=4", "--convolutions=1", "--batch_size=16"]


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with contextlib.ExitStack() as stack:

        def start(*arguments, steps=""):
            command = [str(DEMO)]
            if steps:
                command = ["-c", f"import demo, sys; sys.exit(demo.main({steps}))"]
                monkeypatch.setenv("PYTHONPATH", str(DEMO.parent), prepend=os.pathsep)
            process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder in which the demo has trained and exported."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TFDS_DATA_DIR", str(folder / "tfds"))
        fit = ["fit", "--config=digits", "--workdir=runs/digits", *SHORT, "--deterministic=false", "--steps=2"]
        assert main([*fit, "--warmup_steps=1"]) == 0
        assert main(["export", "--workdir=runs/digits"]) == 0
    return folder


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail(f"the demo ended before it printed {text!r}:\n{''.join(lines)}")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_trains_serves_and_agrees(start, tmp_path):
    demo = start()
    output, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, output
    accuracy = float(re.search(r"test accuracy ([\d.]+)% on digits", output)[1])
    assert accuracy >= 97
    assert len(re.findall(r"^  label \d   REST \d [\d.]+%, .*   gRPC \d [\d.]+%, ", output, re.MULTILINE)) == 6
    difference = float(re.search(r"agree to (\S+) on 6 images", output)[1])
    assert difference <= 1e-5
    assert "curl http://localhost:8501/v1/models/digits" in output
    run = tmp_path / "runs" / "digits"
    assert {path.name for path in run.iterdir()} == {
        "best.keras",
        "checkpoints",
        "model.keras",
        "config.json",
        "export",
        "metrics.jsonl",
        "tensorboard",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "line", "then_seconds", "to_whom"),
    [
        ("", "-m training fit", 0, "group"),
        ("", "-m training fit", 0.03, "group"),
        ("", "-m training fit", 2.5, "demo"),
        ("", "step 50 of", 0, "group"),
        ("demo.export, demo.serve", "exported to", 0, "group"),
        ("demo.serve", "-m serving", 1.5, "demo"),
        ("demo.serve", "Running gRPC ModelServer", 0, "group"),
    ],
    ids=["start", "python-starts", "import", "training", "export-ends", "server-starts", "serving"],
)
@pytest.mark.timeout(300)
def test_ctrl_c_leaves_nothing_behind(start, exported, tmp_path, steps, line, then_seconds, to_whom):
    if steps:
        shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    demo = start(*SHORT, steps=steps)
    read_until(demo, line)
    time.sleep(then_seconds)
    processes = [psutil.Process(demo.pid), *psutil.Process(demo.pid).children(recursive=True)]
    if to_whom == "group":  # as a terminal's Ctrl-C does
        os.killpg(demo.pid, signal.SIGINT)
    else:
        demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive
    for export in (tmp_path / "runs" / "digits").glob("export/*"):
        assert export.name.isdigit()
        assert (export / "assets.extra" / "export.json").is_file()
