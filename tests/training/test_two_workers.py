"""Two processes of this machine as workers of one run: they end as one device does, and not alone when one dies."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tests.training import minimal_loop
from training.data.datasets import open_image_set
from training.distribute.strategy import make_strategy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("two-workers"),  # its cases share one run of both
    pytest.mark.timeout(600),  # which comes first
]

CODE = "import sys; from training.distribute.local_workers import run_workers; sys.exit(run_workers(2, sys.argv[1:]))"


@pytest.fixture(scope="module")
def workers(tmp_path_factory, data_dir):
    """Both workers' weights after each case; in the last one worker 1 is killed."""
    folder = tmp_path_factory.mktemp("two_workers")
    minimal_loop.write_file(folder)
    script = [sys.executable, minimal_loop.__file__, str(folder), *minimal_loop.CASES, minimal_loop.DYING]
    process = subprocess.run(
        [sys.executable, "-c", CODE, *script],
        env={**os.environ, "TFDS_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=580,
    )
    return folder, process


@pytest.mark.slow
@pytest.mark.parametrize("case", minimal_loop.CASES)
def test_two_replicas_and_two_workers_end_with_the_weights_of_one_device(workers, case):
    folder, process = workers
    images, config = open_image_set("digits"), minimal_loop.CASES[case]
    replicas, device = make_strategy(2), make_strategy(1)
    atol = 1e-5 if case.endswith("-adamw") else 1e-6  # the loss is computed in float32, whose errors AdamW normalizes
    expected = minimal_loop.train(device, images, config, folder)
    for value, alone in zip(minimal_loop.train(replicas, images, config, folder), expected, strict=True):
        np.testing.assert_allclose(value, alone, atol=atol)
    for worker in range(2):
        path = folder / f"{case}-{worker}.npz"
        assert path.exists(), process.stderr
        with np.load(path) as weights:
            for value, alone in zip(weights.values(), expected, strict=True):
                np.testing.assert_allclose(value, alone, atol=atol)


def test_workers_share_the_cores_out(workers):
    share = max(1, len(psutil.Process().cpu_affinity()) // 2)
    assert workers[1].stdout == f"{share} threads\n"
    assert f"worker 1: {share} threads\n" in workers[1].stderr


def test_a_worker_that_is_killed_ends_the_other_in_one_line(workers):
    folder, process = workers
    assert process.returncode == 137
    assert not list(folder.glob(f"{minimal_loop.DYING}-*"))
    chief, parent = [line for line in process.stderr.splitlines() if line.startswith("training: ")]
    line = r"training: worker 1 \(127\.0\.0\.1:\d+\) is gone: its process has ended, or its machine cannot be reached"
    assert re.fullmatch(line, chief)
    assert parent == "training: worker 1 ended with status 137"


FLAGS = [
    *("--config", "digits", "--local_workers", "2", "--filters", "4,8", "--convolutions", "1", "--batch_size", "64"),
    *("--steps", "300", "--log_every", "10", "--evaluate_every", "100", "--checkpoint_every", "30"),
    *("--steps_per_execution", "5"),
]


@pytest.fixture
def fit(data_dir, tmp_path):
    """Starts the command in a folder; everything of it is killed when the test ends."""
    with contextlib.ExitStack() as stack:

        def fit(name):
            command = [sys.executable, "-m", "training", "fit", *FLAGS, "--workdir", str(tmp_path / name)]
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = subprocess.Popen(command, env={**os.environ, "TFDS_DATA_DIR": str(data_dir)}, **streams)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield fit


def wait_for_reports(process, folder, count):
    """Waits until the run has reported so many training steps, all of its processes together."""
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count('"train"') < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_two_workers_stopped_and_killed_end_with_the_bits_of_two_left_alone(fit, tmp_path):
    alone = fit("alone")
    output, errors = alone.communicate()
    assert (alone.returncode, errors) == (0, "")
    assert output.splitlines()[1].endswith(" parameters, 2 x CPU")
    assert len(output.splitlines()) == 2 + 30 + 3 + 1  # what the chief alone says

    stopped = fit("ended")
    wait_for_reports(stopped, tmp_path / "ended", 3)
    stopped.terminate()
    assert "which is saved; the same command resumes" in stopped.communicate()[1]
    assert stopped.returncode == 128 + signal.SIGTERM

    killed = fit("ended")
    wait_for_reports(killed, tmp_path / "ended", 12)
    workers = psutil.Process(killed.pid).children()
    assert len(workers) == 2
    killed.kill()
    assert not psutil.wait_procs(workers, timeout=10)[1]

    assert fit("ended").wait() == 0
    ended, expected = (np.load(tmp_path / name / "checkpoints" / "300.npz") for name in ("ended", "alone"))
    with ended, expected:
        assert {name: value.tobytes() for name, value in ended.items()} == {
            name: value.tobytes() for name, value in expected.items()
        }
