"""How scores are compared."""

import numpy as np
import pytest

from training.errors import TrainingError
from training.export.parity import Agreement, check, compare

EXPECTED = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]], np.float32)


def test_same_scores_agree():
    assert compare(EXPECTED, EXPECTED) == Agreement(largest_difference=0, top1=1)


def test_largest_difference_is_that_of_any_score():
    found = compare(EXPECTED, EXPECTED + np.array([[0, 0, 0], [0, 0.125, -0.25]], np.float32))
    assert found.largest_difference == pytest.approx(0.25)
    assert found.top1 == 1


def test_share_of_images_with_the_same_best_class():
    assert compare(EXPECTED, np.roll(EXPECTED, 1, axis=1)).top1 == 0
    assert compare(EXPECTED, EXPECTED[:1].repeat(2, axis=0)).top1 == 0.5


def test_score_that_is_not_a_number_is_infinitely_wrong():
    scores = EXPECTED.copy()
    scores[1, 2] = np.nan
    assert compare(EXPECTED, scores).largest_difference == np.inf


@pytest.mark.parametrize(("difference", "passes"), [(1e-5, True), (1.1e-5, False), (np.inf, False)])
def test_tolerance_is_a_hundred_thousandth(difference, passes):
    agreements = {"exact": Agreement(0, 1), "another": Agreement(difference, 1)}
    if passes:
        check(agreements)
    else:
        with pytest.raises(TrainingError, match="a score of another differs from the Keras model's by"):
            check(agreements)
