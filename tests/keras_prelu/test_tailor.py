import keras
import numpy as np
import pytest
from keras import layers

from keras_prelu import PReLU, initialize, predict_gains


def chain(rectifiers, rectifier=PReLU, width=8):
    stack = [layer for _ in range(rectifiers) for layer in (layers.Dense(width), rectifier())]
    return keras.Sequential([keras.Input((width,)), *stack, layers.Dense(2)])


def likeness_of(slope, rectifiers):
    """C(0) of a chain by the leaky rectifier's C map."""
    c = 0.0
    for _ in range(rectifiers):
        cosine = (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi
        c = min(((1 - slope) ** 2 * cosine + 2 * slope * c) / (1 + slope**2), 1.0)
    return c


@pytest.mark.parametrize(("rectifiers", "target"), [(13, 0.9), (29, 0.9), (29, 0.6)])
@pytest.mark.parametrize("rectifier", [PReLU, layers.LeakyReLU, layers.PReLU])
def test_chain_has_the_likeness_that_was_asked_for(rectifiers, target, rectifier):
    model = chain(rectifiers, rectifier)
    tailoring = initialize(model, tailor=target, seed=0).tailoring
    assert likeness_of(tailoring.slope, rectifiers) == pytest.approx(target, abs=1e-7)
    assert predict_gains(model).likeness == pytest.approx(target, abs=1e-5)
    slopes = [np.ravel(getattr(each, "alpha", getattr(each, "negative_slope", 0))) for each in model.layers[1:-1:2]]
    np.testing.assert_allclose(np.concatenate(slopes), tailoring.slope, rtol=1e-6)


def test_predicted_likeness_is_the_measured_one(rng):
    model = chain(20, width=400)
    images = rng.standard_normal((40, 400)).astype("float32")
    cosines = []
    for seed in range(6):
        initialize(model, tailor=0.8, seed=seed)
        signals = keras.ops.convert_to_numpy(keras.Sequential(model.layers[:-1])(images))
        signals /= np.linalg.norm(signals, axis=1, keepdims=True)
        cosines.append(np.mean((signals @ signals.T)[~np.eye(40, dtype=bool)]))
    assert np.mean(cosines) == pytest.approx(0.8, abs=0.05)


def test_kernels_fit_the_tailored_slopes():
    model = chain(30, width=256)
    report = initialize(model, tailor=0.9, seed=0)
    slope = report.tailoring.slope
    for row in report.kernels[1:]:
        assert row.negative_slope == pytest.approx(slope, rel=1e-6)
        assert row.second_moment == pytest.approx((1 + slope**2) / 2, rel=1e-6)
    assert f"slopes set to {slope:.4g}: C(0) = 0.9" in str(report)


def test_short_chain_gets_slope_0_and_says_what_it_reaches():
    tailoring = initialize(chain(8), tailor=0.9).tailoring
    assert tailoring.slope == 0
    assert tailoring.likeness == pytest.approx(likeness_of(0.0, 8), abs=1e-9)


def test_residual_network_is_tailored_by_its_own_graph():
    inputs = keras.Input((32,))
    x = layers.Dense(32)(inputs)
    for _ in range(60):
        x = layers.Add()([x, layers.Dense(32)(layers.LeakyReLU(0.1)(x))])
    model = keras.Model(inputs, layers.Dense(2)(layers.LeakyReLU(0.1)(x)))
    tailoring = initialize(model, tailor=0.3, seed=0).tailoring
    assert tailoring.likeness == pytest.approx(0.3, abs=1e-6)
    assert tailoring.slope < 0.3  # shortcuts keep images apart: a chain of 60 would need far more


@pytest.mark.parametrize("target", [0.0, 1.0, -1, float("nan")])
def test_targets_outside_are_refused(target):
    with pytest.raises(ValueError, match="must be above 0 and below 1"):
        initialize(chain(3), tailor=target)


def test_network_without_slopes_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.ReLU(), layers.Dense(2)])
    with pytest.raises(ValueError, match="has no PReLU or LeakyReLU layer: there is no slope to tailor"):
        initialize(model, tailor=0.9)


def test_slopes_stay_where_no_slope_fits():
    stack = [layer for _ in range(30) for layer in (layers.Dense(8), layers.ReLU())]
    model = keras.Sequential([keras.Input((8,)), *stack, layers.Dense(8), PReLU(0.125), layers.Dense(2)])
    with pytest.raises(ValueError, match="even with slopes of 1"):
        initialize(model, tailor=0.5)
    np.testing.assert_array_equal(model.layers[-2].alpha, 0.125)
