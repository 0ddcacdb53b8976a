"""The measuring is measured: work of known proportions."""

import time
from functools import partial

import pytest

from benchmarks.interleaved import Cost, measure, median_peak, time_ratios

MEBIBYTE = 2**20


def burn(seconds):
    def step():
        start = time.process_time()
        while time.process_time() - start < seconds:
            pass

    return step


def allocate(size):
    return lambda: bytearray(b"x") * size


def fail():
    raise RuntimeError("no step")


@pytest.mark.slow
def test_cpu_time_is_counted_and_not_the_time_of_others():
    costs = measure({"one": partial(burn, 0.02), "three": partial(burn, 0.06)}, rounds=7)
    assert len(costs["one"]) == 7
    assert time_ratios(costs["three"], costs["one"])[1] == pytest.approx(3, rel=0.2)


def test_sleep_costs_nothing():
    (cost,) = measure({"sleeper": partial(partial, time.sleep, 0.1)}, rounds=1)["sleeper"]
    assert cost.seconds < 0.05


def test_peak_of_memory_is_that_of_the_steps():
    (cost,) = measure({"hoarder": partial(allocate, 64 * MEBIBYTE)}, rounds=1)["hoarder"]
    assert median_peak([cost]) == pytest.approx(64 * MEBIBYTE, rel=0.1)


def test_ratio_is_the_median_within_rounds():
    base = [Cost(seconds, 0) for seconds in (1.0, 2.0, 4.0)]
    ratios = time_ratios([Cost(cost.seconds * factor, 0) for factor, cost in zip((2, 3, 5), base, strict=True)], base)
    assert ratios == [2, 3, 5]


def test_candidate_that_fails_ends_the_measuring():
    with pytest.raises(EOFError):
        measure({"broken": fail}, rounds=1)
