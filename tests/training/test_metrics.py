"""Metrics against the formulas in NumPy, and by hand."""

import numpy as np
import pytest

from training.evaluation.metrics import compute_metrics, published_errors


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 12)), rng.integers(0, 11, 500)  # the last class has no image
    logits[np.arange(500), labels] += 1.5
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True), labels


def test_errors_loss_and_confusion_are_those_of_the_formulas(many):
    scores, labels = many
    found = compute_metrics(scores.astype("float32"), labels)
    own = scores[np.arange(500), labels]
    ranks = (scores > own[:, None]).sum(axis=1)
    assert found.images == 500
    assert found.top1_error == pytest.approx((ranks > 0).mean())
    assert found.top5_error == pytest.approx((ranks > 4).mean())
    assert found.loss == pytest.approx(-np.log(own).mean(), abs=1e-6)
    expected = [
        [((labels == row) & (scores.argmax(axis=1) == column)).sum() for column in range(12)] for row in range(12)
    ]
    np.testing.assert_array_equal(found.confusion, expected)


def test_precision_recall_and_f1_are_those_of_the_confusion(many):
    scores, labels = many
    found = compute_metrics(scores, labels)
    right = np.diag(found.confusion)[:11]
    precision, recall = right / found.confusion.sum(axis=0)[:11], right / found.confusion.sum(axis=1)[:11]
    expected = np.stack([precision, recall, 2 * precision * recall / (precision + recall)], axis=1)
    assert list(found.classes) == list(range(11))
    np.testing.assert_allclose(list(found.classes.values()), expected)
    np.testing.assert_allclose(found.macro, expected.mean(axis=0))


def test_class_that_no_answer_names_has_precision_0():
    found = compute_metrics(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
    assert found.classes[0] == pytest.approx((0.5, 1, 2 / 3))
    assert found.classes[1] == (0, 0, 0)
    assert found.macro == pytest.approx((0.25, 0.5, 1 / 3))


def test_calibration_is_the_gap_in_bins_by_hand():
    scores = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.3, 0.7]])
    found = compute_metrics(scores, np.array([0, 1, 0, 1]))
    assert [(count, right) for count, _, right in found.bins] == [(1, 1.0), (1, 1.0), (2, 0.5)]
    assert found.calibration_error == pytest.approx((0.4 + 0.3 + 2 * 0.45) / 4)


def test_scores_that_are_right_as_often_as_they_say_are_calibrated():
    rng = np.random.default_rng(0)
    first = rng.uniform(size=40_000)
    labels = (rng.uniform(size=40_000) > first).astype(int)
    assert compute_metrics(np.stack([first, 1 - first], axis=1), labels).calibration_error < 0.01


def test_five_classes_have_no_top_5_error():
    assert compute_metrics(np.full((2, 5), 0.2), np.array([0, 1])).top5_error is None


def test_score_of_0_costs_much_but_not_everything():
    assert 30 < compute_metrics(np.array([[1.0, 0.0]]), np.array([1])).loss < 1000


def test_published_errors_are_sorted_and_have_sources():
    rows = published_errors("imagenet2012_subset")
    assert rows[0] == ("C, prelu, dense 256,384,480", 21.59, 5.71, "He et al. 2015")
    assert [row.top1 for row in rows] == sorted(row.top1 for row in rows)
    assert [row.top5 for row in published_errors("cifar10")] == [None, None, None]
    assert published_errors("digits") == []
