import keras
import numpy as np
import pytest
from keras import layers

from keras_prelu.initialization.initializers import HeNormal, HeUniform

SHAPE = (3, 3, 64, 128)  # fan_in 576, fan_out 1152


@pytest.mark.parametrize("negative_slope", [0.0, 0.25, 0.6, 1.0])
@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 576), ("fan_out", 1152), ("fan_avg", 864)])
@pytest.mark.parametrize(
    "make",
    [HeNormal, lambda *args, **kwargs: HeNormal(*args, distribution="truncated_normal", **kwargs), HeUniform],
    ids=["normal", "truncated", "uniform"],
)
def test_variance_is_equation_15(make, mode, fan, negative_slope):
    weights = np.asarray(make(0, negative_slope=negative_slope, mode=mode)(SHAPE), "float64")
    closed_form = 2 / ((1 + negative_slope**2) * fan)
    # 73,728 draws: the standard error of the variance is 0.5 % at most
    assert np.var(weights) == pytest.approx(closed_form, rel=0.025)
    assert np.mean(weights) == pytest.approx(0, abs=5 * np.sqrt(closed_form / weights.size))


@pytest.mark.parametrize(
    ("initializer", "farthest", "kurtosis"),
    [
        (HeNormal(0), (3.5, 6), 3),
        (HeNormal(0, distribution="truncated_normal"), (2.2, 2 / 0.8796), 2.365),
        (HeUniform(0), (1.72, np.sqrt(3) + 1e-3), 1.8),
    ],
    ids=["normal", "truncated", "uniform"],
)
def test_distribution_has_the_named_form(initializer, farthest, kurtosis):
    weights = np.asarray(initializer(SHAPE), "float64")
    deviations = np.abs(weights) / weights.std()
    assert farthest[0] < deviations.max() < farthest[1]
    assert np.mean(deviations**4) == pytest.approx(kurtosis, abs=0.1)


@pytest.mark.parametrize(
    ("shape", "arguments", "fan"),
    [
        ((3, 3, 64, 4), {"kernel": "depthwise"}, 9),
        ((4, 4, 128, 64), {"kernel": "transposed", "strides": 2}, 256),
        ((4, 4, 128, 64), {"kernel": "transposed", "strides": (2, 1)}, 512),
        ((1000, 64), {"kernel": "embedding"}, 1),
        ((3, 3, 8, 128), {"mode": "fan_out", "groups": 8}, 144),
        ((64, 8, 16), {"input_axes": [0], "output_axes": [1, 2]}, 64),
    ],
    ids=["depthwise", "transposed", "strides", "embedding", "groups", "axes"],
)
def test_fans_are_those_of_the_kernel_told(shape, arguments, fan):
    initializer = HeNormal(0, **arguments)
    assert initializer.standard_deviation(shape) == pytest.approx(np.sqrt(2 / fan), rel=1e-12)
    weights = np.asarray(initializer(shape), "float64")
    assert np.std(weights) == pytest.approx(np.sqrt(2 / fan), rel=5 / np.sqrt(2 * weights.size))


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


@pytest.mark.parametrize("initializer", [HeNormal(1), HeUniform(1)], ids=["normal", "uniform"])
def test_einsum_layers_fill_in_their_axes(initializer):
    layer = layers.EinsumDense("abc,cde->abde", (None, 4, 16), kernel_initializer=initializer)
    layer.build((None, 10, 512))
    assert np.std(layer.kernel) == pytest.approx(np.sqrt(2 / 512), rel=0.03)  # fan_in 512, not 512 * 4


def test_attention_gives_each_projection_its_fans_and_weights():
    layer = layers.MultiHeadAttention(8, 16, kernel_initializer=HeNormal(negative_slope=1.0))
    keras.utils.set_random_seed(0)
    layer.build((None, 10, 512), (None, 10, 512))
    query, key, value, output = (np.asarray(v) for v in layer.trainable_variables if v.name == "kernel")
    for kernel, fan_in in [(query, 512), (key, 512), (value, 512), (output, 128)]:
        assert np.std(kernel) == pytest.approx(np.sqrt(1 / fan_in), rel=0.03)
    assert not np.array_equal(query, key)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_draws_in_the_dtype_asked_for(dtype):
    weights = HeNormal(0)((64, 64), dtype=dtype)
    assert keras.backend.standardize_dtype(weights.dtype) == dtype
    assert np.std(np.asarray(weights, "float64")) == pytest.approx(np.sqrt(2 / 64), rel=0.05)


@pytest.mark.parametrize(
    "initializer",
    [
        HeNormal(5, negative_slope=0.25, mode="fan_out", distribution="truncated_normal", groups=2),
        HeNormal(5, kernel="transposed", strides=(2, 2)),
        HeNormal(keras.random.SeedGenerator(5), negative_slope=0.25),
        HeUniform(5, negative_slope=0.25, mode="fan_avg"),
    ],
    ids=["normal", "transposed", "generator", "uniform"],
)
def test_config_round_trip(initializer):
    restored = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    assert restored.get_config() == initializer.get_config()
    np.testing.assert_array_equal(restored((3, 3, 4, 4)), initializer((3, 3, 4, 4)))


def test_saved_model_keeps_the_initializers(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, kernel_initializer=HeNormal(negative_slope=0.25)),
            layers.SeparableConv2D(
                4,
                3,
                depthwise_initializer=HeNormal(kernel="depthwise"),
                pointwise_initializer=HeUniform(3, negative_slope=1.0),
            ),
            layers.Conv2DTranspose(4, 4, strides=2, kernel_initializer=HeNormal(kernel="transposed", strides=2)),
        ]
    )
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    for before, after in zip(model.layers, restored.layers, strict=True):
        assert after.get_config() == before.get_config()
    for before, after in zip(model.weights, restored.weights, strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "fan_both"}, "mode is 'fan_both', but must be one of 'fan_in'"),
        ({"distribution": "cauchy"}, "distribution is 'cauchy', but must be"),
        ({"negative_slope": float("nan")}, "negative_slope is nan"),
        ({"negative_slope": float("inf")}, "negative_slope is inf"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeNormal(**arguments)


def test_a_shape_without_a_fan_is_named():
    with pytest.raises(ValueError, match=r"kernel of shape \(0, 5\) has fans"):
        HeNormal()((0, 5))
    with pytest.raises(ValueError, match="at least one spatial axis"):
        HeUniform(kernel="transposed")((4, 5))


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "selu", "hard_silu", keras.ops.softplus])
@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 300), ("fan_out", 200)])
def test_gain_of_any_activation_follows_from_draws(rng, activation, mode, fan):
    z = rng.standard_normal(1_000_000)
    function = keras.activations.get(activation)
    values, above, below = (np.asarray(function(each), "float64") for each in (z, z + 1e-3, z - 1e-3))
    square = np.mean(values**2) if mode == "fan_in" else np.mean(((above - below) / 2e-3) ** 2)
    initializer = HeNormal(seed=1, activation=activation, mode=mode)
    assert initializer.standard_deviation((300, 200)) == pytest.approx(1 / np.sqrt(fan * square), rel=5e-3)


def test_activation_of_a_rectifier_is_its_slope():
    for name, slope in (("relu", 0.0), ("leaky_relu", 0.2), ("linear", 1.0)):
        by_name, by_slope = HeNormal(activation=name), HeNormal(negative_slope=slope)
        assert by_name.standard_deviation((3, 3, 8, 16)) == pytest.approx(by_slope.standard_deviation((3, 3, 8, 16)))


def test_activation_survives_serialization():
    restored = keras.initializers.deserialize(keras.initializers.serialize(HeNormal(activation="gelu")))
    assert restored.activation is keras.activations.gelu
    assert restored.standard_deviation((10, 10)) == HeNormal(activation="gelu").standard_deviation((10, 10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "softmax"}, "which isn't elementwise"),
        ({"activation": "gelu", "negative_slope": 0.1}, "both say"),
        ({"activation": lambda x: 0 * x}, "is 0 everywhere"),
    ],
)
def test_activations_without_a_gain_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeNormal(**arguments)
