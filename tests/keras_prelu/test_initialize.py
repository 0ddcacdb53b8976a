import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_prelu.initialization.initialize import initialize
from keras_prelu.layer.prelu import PReLU

DEPTH, WIDTH = 30, 512


@pytest.fixture(scope="module")
def deep():
    """Thirty layers of one width, with a learnt rectifier between each two."""
    stack = [layers.Dense(WIDTH) for _ in range(DEPTH)]
    between = [[layer, PReLU(slope_per="layer")] for layer in stack[:-1]]
    return keras.Sequential([keras.Input((WIDTH,)), *(layer for pair in between for layer in pair), stack[-1]])


def set_slopes(model, slope):
    for layer in model.layers:
        if isinstance(layer, PReLU):
            layer.alpha.assign(np.full(layer.alpha.shape, slope))


@tf.function
def signal_and_gradient(model, inputs, upstream):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = model(inputs)
    return outputs, tape.gradient(outputs, inputs, upstream)


def gain(model, mode, seed, depth=DEPTH):
    """The factor on the variance per layer, of the signal or of the gradient."""
    rng = np.random.default_rng(seed)
    ends = [tf.constant(rng.normal(size=(256, size)), "float32") for size in (model.input_shape[1], WIDTH)]
    signals = signal_and_gradient(model, *ends)
    return np.var(signals[0 if mode == "fan_in" else 1]) ** (1 / depth)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_thirty_layers_keep_the_variance(deep, mode, slope):
    set_slopes(deep, slope)
    gains = []
    for seed in range(5):
        initialize(deep, mode, seed=seed)
        gains.append(gain(deep, mode, seed))
    assert np.mean(gains) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_without_the_slope_each_layer_gains_its_square(deep, mode):
    set_slopes(deep, 0.0)
    initialize(deep, mode, seed=0)
    set_slopes(deep, 0.6)
    assert gain(deep, mode, seed=0, depth=DEPTH - 1) == pytest.approx(1.36, abs=0.04)


@pytest.mark.parametrize("slope", [0.0, 0.25])
@pytest.mark.parametrize("branches", [1, 2, 4, 8])
def test_layer_behind_a_sum_of_rectified_branches_keeps_the_variance(branches, slope):
    inputs = keras.Input((256,))
    terms = [layers.LeakyReLU(slope)(layers.Dense(512)(inputs)) for _ in range(branches)]
    total = layers.Add()(terms) if branches > 1 else terms[0]
    model = keras.Model(inputs, layers.Dense(2048)(total))
    images = np.random.default_rng(0).normal(size=(64, 256)).astype("float32")
    squares = []
    for seed in range(3):
        initialize(model, seed=seed)
        squares.append(np.mean(np.square(model(images))))
    assert np.mean(squares) == pytest.approx(1, abs=0.06)


@pytest.fixture(scope="module")
def residual():
    """Thirty blocks y = x + f(x), of two layers each."""
    inputs = x = keras.Input((256,))
    for _ in range(30):
        hidden = x
        for _ in range(2):
            hidden = layers.Dense(256)(PReLU()(hidden))
        x = layers.Add()([x, hidden])
    return keras.Model(inputs, x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "grown"),
    [("fan_in", 1 + 30 / 30), ("fan_out", 1 + 30 / 30 * (1 + 0.25**2) / 2)],  # on its way back: through a rectifier yet
)
def test_thirty_residual_blocks_at_most_double_the_variance(residual, mode, grown):
    variances = []
    for seed in range(3):
        initialize(residual, mode, seed=seed)
        rng = np.random.default_rng(seed)
        ends = [tf.constant(rng.normal(size=(256, 256)), "float32") for _ in range(2)]
        variances.append([np.var(each) for each in signal_and_gradient(residual, *ends)])
    signal, gradient = np.mean(variances, axis=0)
    kept, other = (signal, gradient) if mode == "fan_in" else (gradient, signal)
    assert kept == pytest.approx(grown, rel=0.1)
    assert 1 < other < np.e


@pytest.mark.parametrize("distribution", ["normal", "truncated_normal", "uniform"])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_standard_deviation_of_each_kind_of_kernel(mode, distribution):
    tall = 64
    model = keras.Sequential(
        [
            keras.Input((12, 12, 32)),
            layers.Conv2D(tall, 3, padding="same", activation="relu", name="conv"),
            layers.Conv2D(tall, 3, padding="same", groups=4, name="grouped"),
            layers.LeakyReLU(0.5),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu", name="depthwise"),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(tall, 3, padding="same", name="separable"),
            PReLU(alpha_initializer=0.25),
            layers.Conv2DTranspose(tall, 4, strides=2, padding="same", activation="relu", name="transposed"),
            layers.Reshape((144, tall)),
            layers.EinsumDense("abc,cd->abd", (144, 128), name="einsum"),
            layers.LeakyReLU(0.6),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax", name="logits"),
        ]
    )
    expected = {  # fan_in, fan_out, slope before, slope after
        ("conv", "kernel"): (288, 576, 1, 0),
        ("grouped", "kernel"): (144, 144, 0, 0.5),
        ("depthwise", "kernel"): (9, 18, 0.5, 0),
        ("separable", "depthwise_kernel"): (9, 9, 0, 1),
        ("separable", "pointwise_kernel"): (128, 64, 1, 0.25),
        ("transposed", "kernel"): (256, 1024, 0.25, 0),
        ("einsum", "kernel"): (64, 128, 0, 0.6),
        ("logits", "kernel"): (144 * 128, 10, 0.6, 1),
    }
    report = initialize(model, mode, distribution, seed=1)
    assert report.unplaced == {}
    assert [(row.path, row.kernel) for row in report.kernels] == list(expected)
    for row in report.kernels:
        fan_in, fan_out, before, after = expected[row.path, row.kernel]
        fan, slope = (fan_in, before) if mode == "fan_in" else (fan_out, after)
        closed_form = np.sqrt(2 / ((1 + slope**2) * fan))
        assert (row.fan_in, row.fan_out, row.negative_slope) == pytest.approx((fan_in, fan_out, slope))
        assert row.standard_deviation == pytest.approx(closed_form, rel=1e-6)
        weights = np.asarray(getattr(model.get_layer(row.path), row.kernel), "float64")
        assert np.std(weights) == pytest.approx(closed_form, rel=4 / np.sqrt(2 * weights.size)), row.path


@pytest.mark.slow
def test_equations_are_the_papers(deep):
    def equations(mode, slope):
        set_slopes(deep, slope)
        return [row.equation for row in initialize(deep, mode, seed=0).kernels]

    assert equations("fan_in", 0.0) == ["15"] + ["10"] * (DEPTH - 1)  # nothing is before the first layer,
    assert equations("fan_out", 0.0) == ["14"] * (DEPTH - 1) + ["15"]  # nor after the last
    assert equations("fan_out", 0.25) == ["15"] * DEPTH


def small(first=None, *rest, units=8):
    dense = [layers.Dense(units, name=f"dense{number}") for number in range(3)]
    return keras.Sequential([keras.Input((units,)), dense[0], first or layers.ReLU(), dense[1], *rest, dense[2]])


def test_input_second_moment_is_that_of_the_first_layer():
    stds = [row.standard_deviation for row in initialize(small(), input_second_moment=0.5, seed=0).kernels]
    assert stds == pytest.approx([np.sqrt(2 / 8), np.sqrt(2 / 8), np.sqrt(1 / 8)])


def test_the_papers_fully_connected_layers():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(64, 3, activation="relu", name="conv1"),
            layers.Flatten(),
            layers.Dense(256, activation="relu", name="fc1"),
            layers.Dense(256, activation="relu", name="fc2"),
            layers.Dense(100, activation="softmax", name="fc3"),
        ]
    )
    report = initialize(model, "fan_out", seed=0, fully_connected="paper")
    stds = {row.path: row.standard_deviation for row in report.kernels}
    assert stds == pytest.approx({"conv1": 0.0589, "fc1": 0.01, "fc2": 0.01, "fc3": 0.001}, rel=1e-3)
    for name, std in stds.items():
        assert np.std(model.get_layer(name).kernel) == pytest.approx(std, rel=0.1)


def test_biases_become_zero_and_slopes_stay():
    rectifiers = [PReLU(alpha_initializer=0.3), layers.PReLU(alpha_initializer="ones"), layers.BatchNormalization()]
    model = small(*rectifiers)
    kept = [np.array(weight) for layer in rectifiers for weight in layer.weights]
    for layer in model.layers:
        if isinstance(layer, layers.Dense):
            layer.bias.assign(np.ones(8))
    assert initialize(model).unplaced == {}
    assert all(not np.any(layer.bias) for layer in model.layers if isinstance(layer, layers.Dense))
    now = [np.array(weight) for layer in rectifiers for weight in layer.weights]
    assert all(np.array_equal(before, after) for before, after in zip(kept, now, strict=True))


def test_seed_decides_the_weights():
    first, again, other = small(), small(), small()
    for model, seed in [(first, 1), (again, 1), (other, 2)]:
        initialize(model, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), again.get_weights(), strict=True))
    kernels = [layer.kernel for model in (first, other) for layer in model.layers if isinstance(layer, layers.Dense)]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == len(kernels)


def test_kernels_of_another_shape_do_not_change_what_a_seed_draws():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(8, name="last")(layers.Dense(3)(inputs)))
    longer = keras.Model(inputs, layers.Dense(8, name="last")(layers.Dense(3)(layers.Dense(5)(inputs))))
    for each in (model, longer):
        initialize(each, seed=3)
    np.testing.assert_array_equal(model.get_layer("last").kernel, longer.get_layer("last").kernel)


def test_unseeded_draws_follow_the_global_seed():
    model = small()
    draws = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        initialize(model)
        draws.append(model.get_weights())
    initialize(model)
    assert all(np.array_equal(a, b) for a, b in zip(*draws, strict=True))
    assert not np.array_equal(draws[0][0], model.get_weights()[0])


class Scaled(layers.Layer):
    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(input_shape[-1], input_shape[-1]), name="matrix")
        self.inner = layers.Dense(input_shape[-1], name="inner")
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs @ self.matrix)

    def compute_output_shape(self, input_shape):
        return input_shape


def test_what_cannot_be_placed_is_left_and_named():
    model = small(layers.Lambda(lambda x: keras.ops.softmax(x), name="own"), Scaled(name="scaled"))
    model.get_layer("dense0").trainable = False
    before = {weight.path: np.array(weight) for weight in model.weights}
    report = initialize(model, seed=0)
    assert report.kernels == ()
    assert report.unplaced == {
        "dense0/kernel": "not trainable",
        "dense1/kernel": "not known what Lambda own, which isn't elementwise, does to a signal",
        "scaled/inner/kernel": "not known what Scaled scaled does to a signal",
        "dense2/kernel": "not known what Scaled scaled does to a signal",
        model.get_layer("scaled").matrix.path: "unknown layer",
    }
    assert all(np.array_equal(before[weight.path], weight) for weight in model.weights)
    assert (
        "left as it was: dense1/kernel (not known what Lambda own, which isn't elementwise, does to a signal)"
        in str(report).splitlines()
    )


def test_report_is_a_table():
    table = str(initialize(small(layers.LeakyReLU(0.5)), seed=0)).splitlines()
    assert table[0].split() == ["layer", "kernel", "fan_in", "fan_out", "slope", "m", "s", "eq.", "std"]
    assert table[2].split() == ["dense1", "kernel", "8", "8", "0.5", "0.625", "1", "15", "0.447"]
    assert len(table) == 4


def test_nested_models_and_attention_are_initialized():
    inputs = keras.Input((5, 64))
    block = keras.Sequential([keras.Input((5, 64)), layers.Dense(256, activation="relu"), layers.Dense(64)], name="mlp")
    attended = layers.MultiHeadAttention(4, 16, name="attention")
    hidden = attended(inputs, inputs)
    model = keras.Model(inputs, block(layers.LayerNormalization()(hidden)))
    report = initialize(model, seed=0)
    assert report.unplaced == {}
    assert {row.path: round(row.standard_deviation**-2) for row in report.kernels} == {
        "attention/query": 64,
        "attention/key": 64,
        "attention/value": 64,
        "attention/attention_output": 64,
        f"mlp/{block.layers[0].name}": 64,
        f"mlp/{block.layers[1].name}": 128,
    }
    kernels = [weight for weight in attended.weights if weight.name == "kernel"]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 4
    assert np.std(kernels[0]) == pytest.approx(1 / 8, rel=0.05)


@pytest.mark.parametrize("dtype", ["mixed_float16", "float64", "bfloat16"])
def test_kernels_keep_their_dtype(dtype):
    model = keras.Sequential([keras.Input((128,)), layers.Dense(128, dtype=dtype, name="dense")])
    initialize(model, seed=0)
    kernel = model.get_layer("dense").kernel
    assert kernel.dtype == {"mixed_float16": "float32"}.get(dtype, dtype)
    assert np.std(np.asarray(kernel, "float64")) == pytest.approx(np.sqrt(1 / 128), rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "fan_avg"}, "mode is 'fan_avg', but must be one of 'fan_in', 'fan_out'"),
        ({"distribution": "cauchy"}, "distribution is 'cauchy', but must be one of 'normal'"),
        ({"fully_connected": "small"}, "fully_connected is 'small'"),
        ({"seed": 0.5}, "seed is 0.5, but must be an integer"),
        ({"input_second_moment": 0.0}, "input_second_moment is 0.0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        initialize(small(), **arguments)


def test_models_without_a_graph_are_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="'unbuilt' is not built"):
        initialize(keras.Sequential([layers.Dense(2)], name="unbuilt"))
    with pytest.raises(ValueError, match="functional or Sequential model is needed"):
        initialize(Subclassed())
