"""Runs that share a seed, and what the tables of all studies share."""

import math

import pytest

from training.reproduce.figures import cost_table, new_figure
from training.reproduce.pairs import compare, comparison_cells, draw_pairs, holm, median_ratio, seed_cells


def test_paired_test_gives_the_figures_of_students_sleep_data():
    """Student, "The Probable Error of a Mean", 1908: hours of sleep won by two drugs; t = 4.0621, 9 degrees."""
    first = dict(enumerate((0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)))
    second = dict(enumerate((1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)))
    found = compare(first, second)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert str(found) == "-1.58 [-2.46, -0.70]"
    assert found.lower == "9 of 10"


def test_interval_of_three_pairs():
    """Differences of 1, 2 and 3: t = 2 sqrt(3), and with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2)."""
    found = compare({0: 11.0, 1: 12.0, 2: 13.0}, {0: 10.0, 1: 10.0, 2: 10.0})
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3))


def test_seed_that_one_side_lacks_is_left_out():
    assert compare({0: 1.0, 1: 2.0, 2: 4.0}, {1: 1.0, 2: 1.0, 3: 9.0}).differences == (1.0, 3.0)


@pytest.mark.parametrize(
    ("ours", "cells"),
    [
        ({}, ["-", "-", "-", "-"]),
        ({0: 0.2}, ["-0.10", "-", "-", "1 of 1"]),
        ({0: 0.2, 1: 0.1}, ["-0.10", "-", "-", "2 of 2"]),  # whose differences are not equal in binary
    ],
    ids=["no pair", "one pair", "equal differences"],
)
def test_no_test_without_two_differences(ours, cells):
    assert comparison_cells([compare(ours, {0: 0.3, 1: 0.2})]) == [cells]


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.5], [1.0, 1.0]),
        ([0.02, math.nan, 0.01], [0.02, math.nan, 0.02]),
    ],
    ids=["never falls with p", "at most 1", "counts what was tested"],
)
def test_holm(given, corrected):
    assert holm(given) == pytest.approx(corrected, nan_ok=True)


def test_median_ratio_is_that_of_pairs():
    assert median_ratio({0: 2.0, 1: 9.0, 2: 4.0}, {0: 1.0, 1: 3.0, 2: 1.0, 3: 50.0}) == "3.00"


def test_failed_and_missing_runs_differ():
    ended, failed = ({"settings": {"config": {"seed": seed}}} for seed in range(2))
    records = [ended, failed | {"failed": "the loss is nan"}]
    assert seed_cells(records, range(3), lambda record: 1.5) == ["1.50", "failed", "-"]


def test_line_of_a_seed_ends_where_a_run_is_missing():
    axes = new_figure(2, 2).subplots()
    draw_pairs(axes, (0, 1), [{0: 1.0, 1: 3.0}, {1: 5.0}], ("red", "blue"))
    lines = [line.get_ydata().tolist() for line in axes.get_lines()]
    assert lines[:2] == [[1.0, pytest.approx(math.nan, nan_ok=True)], [3.0, 5.0]]
    bars = [bar.get_segments()[0][:, 1].tolist() for bar in axes.collections]
    assert bars == [[2.0, 2.0], [5.0, 5.0]]


def test_the_cost_counts_failed_runs_and_names_each_machine_and_version_once():
    versions = {"tensorflow": "2.21.0", "keras": "3.15.1"}
    records = [
        {"cpu_seconds": 30.0, "machine": "b, 2 threads", "versions": versions},
        {"cpu_seconds": 45.0, "machine": "a, 1 threads", "versions": versions | {"keras": "3.15.0"}},
        {"cpu_seconds": 15.0, "machine": "b, 2 threads", "versions": versions, "failed": "the loss is nan"},
    ]
    header, _, cells = cost_table(records).splitlines()
    assert cells == "| 3 | 1 | 1.5 | 30.0 | a, 1 threads; b, 2 threads | 2.21.0 | 3.15.0, 3.15.1 |"
    assert (
        header == "| runs | failed | CPU minutes in all | median CPU seconds per run | machine | TensorFlow | Keras |"
    )
