"""`--engine=ray`: the same parts by workers of Ray, as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def batch(colours, photos, tmp_path):
    def run(name, *flags, without=""):
        code = f"import runpy, sys; sys.modules[{without!r}] = None; runpy.run_module('serving', run_name='__main__')"
        program = ["-c", code] if without else ["-m", "serving"]
        arguments = ["batch", str(colours), str(photos), f"--output={tmp_path / name}", "--part_rows=4", *flags]
        unset = ("RAY_ADDRESS", "TF_CPP_MIN_LOG_LEVEL")  # with it, TensorFlow says what the user asked for
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        command = [sys.executable, *program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment, check=False)

    return run


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_workers_write_the_same_bytes(batch, tmp_path):
    assert batch("alone").returncode == 0
    made = batch("ray", "--engine=ray", "--ray_workers=2")
    assert made.returncode == 0, made.stderr  # which Ray may write to
    assert made.stdout == f"10 rows in 3 parts in {tmp_path / 'ray'}; 0 unreadable\n"
    assert files(tmp_path / "ray") == files(tmp_path / "alone")


def test_ray_is_not_installed(batch, tmp_path):
    refused = batch("out", "--engine=ray", without="ray")
    assert refused.returncode == 2
    assert refused.stderr == (
        "keras-prelu batch: ray is not installed; in a clone of keras_prelu, pip install -e '.[ray]' brings it\n"
    )


def test_no_cluster_at_the_address(batch, tmp_path):
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        refused = batch("out", "--engine=ray", f"--ray_address={address}")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"keras-prelu batch: no Ray cluster answers at {address}")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_sigterm_ends_the_workers(colours, photos, tmp_path):
    command = [sys.executable, "-m", "serving", "batch", str(colours), str(photos), f"--output={tmp_path / 'out'}"]
    flags = ["--engine=ray", "--part_rows=1", "--ray_workers=1"]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        while not list((tmp_path / "out").glob("part-*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        told = process.communicate()[1].splitlines()
    assert process.returncode == 143
    assert told[-1] == "keras-prelu batch: interrupted; the same command resumes with the parts that are missing"
    assert not list((tmp_path / "out").glob(".unfinished-*"))
