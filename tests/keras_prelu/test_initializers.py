import keras
import numpy as np
import pytest

from keras_prelu import HeNormal

SHAPE = (3, 3, 64, 128)  # fan_in 576, fan_out 1152


@pytest.mark.parametrize("negative_slope", [0.0, 0.25, 0.6, 1.0])
@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 576), ("fan_out", 1152)])
def test_variance_is_equation_15(negative_slope, mode, fan):
    weights = np.asarray(HeNormal(seed=0, negative_slope=negative_slope, mode=mode)(SHAPE), "float64")
    closed_form = 2 / ((1 + negative_slope**2) * fan)
    # 73,728 draws: the standard error of the variance is 0.5 %
    assert np.var(weights) == pytest.approx(closed_form, rel=0.025)
    assert np.mean(weights) == pytest.approx(0, abs=5 * np.sqrt(closed_form / weights.size))


def test_normal_distribution_is_not_truncated():
    weights = np.asarray(HeNormal(seed=0)(SHAPE), "float64")
    deviations = weights / weights.std()
    assert np.abs(deviations).max() > 3.5
    assert np.mean(deviations**4) == pytest.approx(3, abs=0.1)  # the kurtosis; 2.36 where Keras truncates


@pytest.mark.parametrize("negative_slope", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_signal_keeps_its_variance_through_thirty_layers(negative_slope, mode):
    gains = [_gain_per_layer(negative_slope, mode, seed) for seed in range(5)]
    assert np.mean(gains) == pytest.approx(1, abs=0.03)


def _gain_per_layer(negative_slope, mode, seed, depth=30, width=512):
    signal = start = np.random.default_rng(seed).normal(size=(256, width))
    for layer in range(depth):
        weights = np.asarray(
            HeNormal(1000 * seed + layer, negative_slope=negative_slope, mode=mode)((width, width)), "float64"
        )
        if mode == "fan_out":  # the gradient's way back
            rectified = signal * np.where(
                np.random.default_rng([seed, layer]).normal(size=signal.shape) > 0, 1, negative_slope
            )
            signal = rectified @ weights.T
        else:
            rectified = np.maximum(0, signal) + negative_slope * np.minimum(0, signal)
            signal = rectified @ weights
    return (np.var(signal) / np.var(start)) ** (1 / depth)


def test_seed_decides_the_weights():
    np.testing.assert_array_equal(HeNormal(seed=7)((5, 6)), HeNormal(seed=7)((5, 6)))
    assert not np.array_equal(HeNormal(seed=7)((5, 6)), HeNormal(seed=8)((5, 6)))


def test_unseeded_instance_draws_anew_and_follows_the_global_seed():
    initializer = HeNormal()
    keras.utils.set_random_seed(3)
    first, second = np.array(initializer((5, 6))), np.array(initializer((5, 6)))
    keras.utils.set_random_seed(3)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(initializer((5, 6)), first)


def test_takes_the_place_of_the_keras_initializer():
    layer = keras.layers.EinsumDense("abc,cde->abde", (None, 4, 16), kernel_initializer=HeNormal(1))
    layer.build((None, 10, 512))
    assert np.std(layer.kernel) == pytest.approx(np.sqrt(2 / 512), rel=0.03)  # fan_in 512, not 512 * 4


def test_config_round_trip():
    initializer = HeNormal(5, negative_slope=0.25, mode="fan_out")
    restored = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    assert restored.get_config() == initializer.get_config()
    np.testing.assert_array_equal(restored((4, 4)), initializer((4, 4)))


def test_unknown_mode_is_named():
    with pytest.raises(ValueError, match="mode is 'fan_both', but must be"):
        HeNormal(mode="fan_both")
