"""Runs that are killed (SIGKILL) or asked to end, and what the next one makes of their folder."""

import functools
import os
import signal
import time

import pyarrow.dataset
import pytest

from benchmarks import batch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("serving")]

PARTS, ROWS = 8, 50


@pytest.fixture(scope="module")
def listed(photos, tmp_path_factory):
    """A list of links to the ten photos, under 400 names."""
    folder = tmp_path_factory.mktemp("many")
    paths = sorted(photos.rglob("*.png"))
    for number in range(PARTS * ROWS):
        (folder / f"{number:03}.png").symlink_to(paths[number % len(paths)])
    return folder


running = functools.partial(batch.running, flags=(f"--part_rows={ROWS}", "--batch_size=1"))


def wait_within(process, output, num_parts):
    """Waits until there are so many parts, and the next one is being written."""
    while len(list(output.glob("part-*"))) < num_parts or not list(output.glob(".unfinished-*")):
        assert process.is_alive(), output.with_suffix(".log").read_text()
        time.sleep(0.001)


def finish(export, images, output):
    with running(export, images, output) as process:
        process.join()
        assert process.exitcode == 0, output.with_suffix(".log").read_text()
    return {path.name: path.read_bytes() for path in sorted(output.iterdir())}


def test_killed_runs_lose_and_double_no_row(colours, listed, tmp_path):
    for kill in range(1, 6):
        with running(colours, listed, tmp_path / "killed") as process:
            wait_within(process, tmp_path / "killed", kill)
    killed = finish(colours, listed, tmp_path / "killed")
    ids = pyarrow.dataset.dataset(tmp_path / "killed").to_table()["id"].to_pylist()
    assert sorted(ids) == sorted(map(str, listed.iterdir()))
    assert killed == finish(colours, listed, tmp_path / "alone")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signals_end_a_run_between_two_batches(colours, listed, tmp_path, number):
    output = tmp_path / "out"
    with running(colours, listed, output) as process:
        wait_within(process, output, 1)
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == 128 + number
    told = output.with_suffix(".log").read_text().splitlines()  # TensorFlow may complain first, in a forked process
    assert told[-1] == "keras-prelu batch: interrupted; the same command resumes with the parts that are missing"
    assert not list(output.glob(".unfinished-*"))
