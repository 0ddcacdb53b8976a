"""Processes that train and are killed; `python -m benchmarks.kill` does the same with twenty kills."""

import pytest

from benchmarks.kill import run_both, same_bits


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_run_killed_again_and_again_ends_with_the_bits_of_one_left_alone(tmp_path):
    killed, alone = run_both(tmp_path, kills=3, seed=0)
    assert same_bits(killed, alone)
    assert not list(tmp_path.glob("*/checkpoints/unfinished"))
    assert (tmp_path / "killed" / "metrics.jsonl").read_text().count("\n") == (
        (tmp_path / "alone" / "metrics.jsonl").read_text().count("\n")
    )
