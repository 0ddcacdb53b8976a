"""The runs of docs/depth.md: their settings, their files, their page."""

import math
import pathlib
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks.depth import (
    DEPTHS,
    SEEDS,
    STARTS,
    Images,
    Run,
    full_runs,
    long_runs,
    mean_slope,
    network,
    restart,
    sweep,
    train,
    train_missing,
)
from benchmarks.depth_results import best_rates, read, runs_table, with_tables

DOCS = pathlib.Path(__file__).parents[2] / "docs"
SMALL = Run(depth=4, start="0.25", seed=0, learning_rate=0.01, steps=20, width=8, batch_size=8)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    examples = generator.standard_normal((64, 12)).astype("float32"), generator.integers(0, 10, 64)
    return Images(examples, examples)


@pytest.mark.slow
def test_run_in_the_file_is_not_trained_again(images, tmp_path):
    path = tmp_path / "depth" / "runs.jsonl"
    train_missing([SMALL], images, path)
    first = path.read_text()
    train_missing([SMALL, replace(SMALL, seed=1)], images, path)
    assert path.read_text().startswith(first)
    assert [line["seed"] for line in read(path)] == [0, 1]
    assert len(read(path)[0]["loss"]) == len(read(path)[0]["accuracy"]) == 20


@pytest.mark.slow
def test_run_after_others_is_the_run_alone(images):
    def curve(run):
        return train(run, images)["loss"]

    alone = curve(SMALL)
    assert curve(replace(SMALL, start="0", seed=1, learning_rate=0.1)) != alone
    assert curve(SMALL) == alone


@pytest.mark.slow
def test_diverged_run_is_a_line_too(images, tmp_path):
    train_missing([replace(SMALL, learning_rate=1e30)], images, tmp_path / "runs.jsonl")
    (line,) = read(tmp_path / "runs.jsonl")
    assert line["loss"][-1] is None
    assert "| never |" in runs_table([line])


def likeness_of_chain(slope, rectifiers):
    """C(0) in closed form: how correlated two uncorrelated inputs are behind wide layers with these rectifiers."""
    correlation = 0.0
    for _ in range(rectifiers):
        arc = math.sqrt(1 - correlation**2) + (math.pi - math.acos(correlation)) * correlation
        correlation = ((1 - slope) ** 2 * arc / math.pi + 2 * slope * correlation) / (1 + slope**2)
    return correlation


@pytest.mark.slow
def test_likeness_is_predicted_and_measured(images):
    """A thousand units are near the closed form, which is that of infinitely many."""
    line = train(replace(SMALL, width=1024), images)
    assert line["c0"] == pytest.approx(likeness_of_chain(0.25, 3), abs=1e-4)
    assert line["c0_measured"] == pytest.approx(line["c0"], abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [30, 60])
def test_tailored_slopes_are_those_of_the_closed_form(depth):
    model = network(depth, width=8, inputs=12, clip_norm=1.0)
    restart(model, replace(SMALL, start="tailored", depth=depth))
    assert likeness_of_chain(mean_slope(model), depth - 1) == pytest.approx(0.9, abs=1e-5)


def results():
    return {path.stem: read(path) for path in (DOCS / "depth").glob("*.jsonl")}


def test_files_hold_every_run_and_no_other():
    rates = best_rates(results()["sweep"])
    wanted = {"sweep": sweep(), "runs": full_runs(rates), "long": long_runs(rates)}
    settings = asdict(SMALL).keys()
    for name, lines in results().items():
        found = Counter(tuple(line[key] for key in settings) for line in lines)
        assert found == Counter(tuple(asdict(run)[key] for key in settings) for run in wanted.pop(name))
    assert not wanted
    assert len(results()["runs"]) == len(DEPTHS) * len(STARTS) * len(SEEDS)


def test_likeness_in_the_files_is_that_of_the_closed_form():
    for line in results()["runs"]:
        assert line["c0"] == pytest.approx(likeness_of_chain(line["slope"], line["depth"] - 1), abs=1e-5)


def test_tables_of_the_page_are_those_of_the_files():
    page = (DOCS / "depth.md").read_text()
    assert with_tables(page, results()) == page
