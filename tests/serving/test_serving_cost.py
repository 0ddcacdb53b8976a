"""What strangers' bytes cost: time and memory in proportion to their number, for every decoder that meets them."""

import gc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.serving_hostile import DECODERS, WORST, hostile, measured

pytestmark = pytest.mark.xdist_group("serving")

quickly = settings(
    max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module", autouse=True)
def _without_old_garbage():
    # Else a collection goes through all objects of TensorFlow, and some input pays for it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as the server does
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("name", WORST)
def test_worst_bodies_known_cost_what_their_length_allows(name):
    decoder, data = WORST[name]
    cost, may = measured(DECODERS[decoder], data)
    assert not cost.exceeds(may), (cost, may, len(data))


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
@quickly
@given(chance=st.randoms(use_true_random=False))
def test_no_body_costs_more_than_its_length_allows(name, chance):
    data = hostile(name, chance, 8192)
    cost, may = measured(DECODERS[name], data)
    assert not cost.exceeds(may), (cost, may, len(data), data[:200])
