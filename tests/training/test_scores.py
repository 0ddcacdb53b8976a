"""Figures worked out by hand, and against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from training.evaluation.scores import judge


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 12)), rng.integers(0, 12, 500)
    logits[np.arange(500), labels] += 1.5
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True), labels


def test_errors_and_loss_are_scikit_learns(many):
    scores, labels = many
    found = judge(scores, labels)
    assert found.images == 500
    assert found.top1_error == pytest.approx(1 - top_k_accuracy_score(labels, scores, k=1))
    assert found.top5_error == pytest.approx(1 - top_k_accuracy_score(labels, scores, k=5))
    assert found.loss == pytest.approx(log_loss(labels, scores))
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, scores.argmax(axis=1)))


def test_calibration_is_the_gap_in_bins_by_hand():
    scores = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.3, 0.7]])
    found = judge(scores, np.array([0, 1, 0, 1]))
    assert [(count, right) for count, _, right in found.bins] == [(1, 1.0), (1, 1.0), (2, 0.5)]
    assert found.calibration_error == pytest.approx((0.4 + 0.3 + 2 * 0.45) / 4)


def test_scores_that_tell_the_truth_are_calibrated():
    rng = np.random.default_rng(0)
    first = rng.uniform(size=40_000)
    labels = (rng.uniform(size=40_000) > first).astype(int)
    assert judge(np.stack([first, 1 - first], axis=1), labels).calibration_error < 0.01


def test_class_errors_are_each_classs_own():
    found = judge(np.eye(4)[[0, 1, 1, 1]] * 0.7 + 0.075, np.array([0, 0, 1, 3]))
    np.testing.assert_array_equal(found.class_errors(), [0.5, 0, np.nan, 1])


def test_five_classes_have_no_top_5_error():
    assert np.isnan(judge(np.full((2, 5), 0.2), np.array([0, 1])).top5_error)


def test_impossible_label_costs_much_but_not_everything():
    assert 100 < judge(np.array([[1.0, 0.0]]), np.array([1])).loss < 1000
