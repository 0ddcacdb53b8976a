"""The faults of Keras's `fit` in docs/keras_fit.md, in the Keras that is installed.

`make test-keras` runs them, not `make test`: they fail when Keras mends a fault.
"""

import json
import subprocess
import sys

import pytest

from tests.keras_fit import attempts


@pytest.fixture(scope="module")
def found():
    process = subprocess.run([sys.executable, attempts.__file__], stdout=subprocess.PIPE, timeout=150, check=True)
    return json.loads(process.stdout)


def test_two_replicas_end_as_one_while_batches_are_even(found):
    assert found["even"] < 1e-6


@pytest.mark.parametrize("case", ["ragged", "one without", "clipped", "normalized"])
def test_two_replicas_end_otherwise_than_one(found, case):
    assert found[case] > 1e-2


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("several steps", "You must feed a value for placeholder"),
        ("xla", "located in device /job:localhost/replica:0/task:0/device:CPU:1"),
        ("accumulation", "`merge_call` called while defining a new graph"),
    ],
)
def test_two_replicas_fail(found, case, message):
    assert message in found[case]


def test_replicas_draw_the_same_masks(found):
    assert found["same masks"]


def test_weight_decay_bypasses_the_momentum(found):
    assert found["decayed"] == pytest.approx((1 - 0.1 * 0.01) ** attempts.STEPS, rel=1e-3)


def test_interrupted_epoch_is_begun_anew_and_the_plateau_forgotten(found):
    assert (found["iterations"], found["plateau"]) == (12 + 8, 0)  # of 16; the last save was after step 12


def test_workers_fail():
    code = (
        "import sys; from training.distribute.local_workers import run_workers; sys.exit(run_workers(2, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, sys.executable, attempts.__file__, "worker"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=100)
    line = "Attempt to convert a value "
    assert sorted(process.stdout.splitlines()) == [line, f"worker 1: {line}"]
