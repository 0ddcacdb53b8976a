"""Two processes of this machine as workers of one run: they end as one device does, and not alone when one dies."""

import os
import re
import subprocess
import sys

import numpy as np
import psutil
import pytest

from tests.training import minimal_loop
from training.datasets import open_image_set
from training.strategy import make_strategy

CODE = "import sys; from training.workers import run_workers; sys.exit(run_workers(2, sys.argv[1:]))"


@pytest.fixture(scope="module")
def workers(tmp_path_factory, data_dir):
    """Both workers' weights after each case; in the last one worker 1 is killed."""
    folder = tmp_path_factory.mktemp("two_workers")
    script = [sys.executable, minimal_loop.__file__, str(folder), *minimal_loop.CASES, minimal_loop.DYING]
    process = subprocess.run(
        [sys.executable, "-c", CODE, *script],
        env={**os.environ, "TFDS_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    return folder, process


@pytest.mark.parametrize("case", minimal_loop.CASES)
def test_two_workers_end_with_the_weights_of_one_device(workers, case):
    folder, process = workers
    expected = minimal_loop.train(make_strategy(1), open_image_set("digits"), minimal_loop.CASES[case])
    for worker in range(2):
        path = folder / f"{case}-{worker}.npz"
        assert path.exists(), process.stderr
        with np.load(path) as weights:
            for value, alone in zip(weights.values(), expected, strict=True):
                np.testing.assert_allclose(value, alone, atol=1e-6)


def test_workers_share_the_cores_out(workers):
    share = max(1, len(psutil.Process().cpu_affinity()) // 2)
    assert sorted(workers[1].stdout.splitlines()) == [f"{share} threads", f"worker 1: {share} threads"]


def test_a_worker_that_is_killed_ends_the_other_in_one_line(workers):
    folder, process = workers
    assert process.returncode == 137
    assert not list(folder.glob(f"{minimal_loop.DYING}-*"))
    chief, parent = process.stderr.splitlines()
    line = r"training: worker 1 \(127\.0\.0\.1:\d+\) is gone: its process has ended, or its machine cannot be reached"
    assert re.fullmatch(line, chief)
    assert parent == "training: worker 1 ended with status 137"
