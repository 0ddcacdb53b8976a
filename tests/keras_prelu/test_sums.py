"""Sums with rectified terms, as in residual networks, against Monte Carlo with a million draws."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_prelu import initialize, measure_gains, predict_gains
from keras_prelu.walk.activations import Rectifier
from keras_prelu.walk.rules import applied
from keras_prelu.walk.signal import POINTS, WEIGHTS, Signal
from keras_prelu.walk.sums import gradient_by_term, slopes_behind, total

DRAWS = 1_000_000
ALIKE = 0.4  # E[x x'] of the normal values of two images
RELU = Rectifier(0.0, 0.0)


@pytest.fixture
def pairs(rng):
    """Normal values of two images, with a correlation of ALIKE."""

    def draw(std=1.0):
        shared, one, other = rng.standard_normal((3, DRAWS))
        return std * (np.sqrt(ALIKE) * shared + np.sqrt(1 - ALIKE) * np.stack([one, other]))

    return draw


def normal(std=1.0):
    return Signal(np.ones(1), np.zeros(1), np.array([std**2]), np.array([ALIKE * std**2]))


def relu(values):
    return np.maximum(values, 0)


@pytest.mark.parametrize("std", [0.2, 1.0], ids=["small_branch", "branch"])
def test_rectifier_behind_rectified_sums_in_a_row(pairs, std):
    signal, values = RELU.forward(normal()), relu(pairs())
    for _ in range(4):
        signal, values = total([signal, normal(std)], [1.0, 1.0]), values + pairs(std)
        slopes, alike = slopes_behind(RELU, signal)
        assert slopes == pytest.approx(np.mean(values > 0), abs=0.01)
        assert alike == pytest.approx(np.mean((values[0] > 0) & (values[1] > 0)), abs=0.02)
        signal = applied(RELU, signal)
        values = relu(values)
        assert signal.mean == pytest.approx(np.mean(values), rel=0.01)
        assert signal.second_moment == pytest.approx(np.mean(values**2), rel=0.01)
        assert signal.others == pytest.approx(np.mean(values[0] * values[1]), rel=0.05)


def test_sum_of_rectified_terms_only(pairs):
    signal = applied(RELU, total([RELU.forward(normal())] * 2, [1.0, -1.0]))
    one, other = relu(pairs()), relu(pairs())
    assert signal.second_moment == pytest.approx(np.mean(relu(one - other) ** 2), rel=0.02)
    assert signal.mean == pytest.approx(np.mean(relu(one - other)), rel=0.02)


def test_gradient_of_a_sum_where_a_term_is_large(pairs):
    terms, values = [RELU.forward(normal()), normal(0.5)], pairs()
    by_value = (total(terms, [1.0, 1.0]).activation(POINTS) > 0).astype("float64")
    by_term = gradient_by_term(by_value, terms, [1.0, 1.0], 0)
    above = relu(values) + pairs(0.5) > 0
    assert WEIGHTS @ by_term == pytest.approx(np.mean(above), abs=0.01)
    assert by_term[POINTS < 0] == pytest.approx(0.5, abs=0.05)
    assert by_term[POINTS > 2].min() > 0.99


def test_gradients_through_a_residual_network_are_as_measured():
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((128,))
    for _ in range(12):
        branch = layers.Dense(128, use_bias=False)(layers.ReLU()(layers.Dense(128, use_bias=False)(x)))
        x = layers.ReLU()(layers.Add()([x, branch]))
    model = keras.Model(inputs, x)
    initialize(model, seed=0)
    batch = np.random.default_rng(0).standard_normal((512, 128), "float32")
    predicted, measured = predict_gains(model, batch).rows, measure_gains(model, batch).rows
    pairs = list(zip(predicted, measured, strict=True))
    ratios = [one.backward_mean_square / other.backward_mean_square for one, other in pairs]
    np.testing.assert_allclose(ratios, 1, atol=0.2)
    ratios = [one.forward_mean_square / other.forward_mean_square for one, other in pairs]
    assert np.median(np.abs(np.subtract(ratios, 1))) < 0.15  # of one draw of 128 channels
