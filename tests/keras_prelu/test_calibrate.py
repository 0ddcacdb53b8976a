import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_prelu import calibrate, initialize


@pytest.fixture
def rng():
    keras.utils.set_random_seed(0)  # the weights of new models
    return np.random.default_rng(0)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def smooth(images):
    """Images whose neighbouring pixels are alike, of variance 1: noise averaged over 7x7 pixels."""
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="wrap")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), (1, 2))
    return (7 * windows.mean((-2, -1))).astype("float32")


def convolutions(depth):
    """Convolutions with activations that no closed form of rectifiers covers, as layers of their own."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3))
    preactivations = []
    for index in range(depth):
        x = layers.Conv2D(16, 3, padding="same", name=f"conv{index}")(x)
        preactivations.append(x)
        x = layers.Activation(("gelu", "relu", "softplus")[index % 3])(x)
    x = layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x), keras.Model(inputs, [*preactivations, x])


def squares(outputs, batch, **arguments):
    return [np.mean(array(each) ** 2) for each in outputs(batch, **arguments)]


@pytest.mark.parametrize("images", ["noise", "smooth"])
def test_thirty_layers_reach_one_on_any_images(rng, images):
    model, outputs = convolutions(30)
    batch = rng.normal(size=(16, 16, 16, 3)).astype("float32")
    batch = smooth(batch) if images == "smooth" else batch
    assert max(squares(outputs, batch)) > 4 or min(squares(outputs, batch)) < 0.25  # Glorot's start does not
    report = calibrate(model, batch, tolerance=0.02)
    np.testing.assert_allclose(squares(outputs, batch), 1, rtol=0.02)
    assert len(report.kernels) == 31


def test_report_has_the_factors(rng):
    model, outputs = convolutions(4)
    batch = rng.normal(size=(8, 16, 16, 3)).astype("float32")
    before = {layer.name: array(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}
    first = squares(outputs, batch)[0]
    report = calibrate(model, batch, tolerance=1e-4)
    assert [row.path for row in report.kernels] == ["conv0", "conv1", "conv2", "conv3", "logits"]
    assert report.kernels[0].found == pytest.approx(first, rel=1e-5)
    for row in report.kernels:
        np.testing.assert_allclose(array(model.get_layer(row.path).kernel), row.factor * before[row.path], rtol=1e-5)
        assert row.factor == pytest.approx(np.sqrt(1 / row.found), rel=1e-4)
    header, *lines = str(report).splitlines()
    assert header.split()[:6] == ["layer", "kernel", "target", "found", "reached", "factor"]
    assert lines[0].split()[:3] == ["conv0", "kernel", "1"]


def test_second_time_changes_nothing(rng):
    model, _ = convolutions(4)
    batch = rng.normal(size=(8, 16, 16, 3)).astype("float32")
    calibrate(model, batch)
    before = [array(weight) for weight in model.weights]
    report = calibrate(model, batch)
    assert report.moved == ()
    assert {row.reason for row in report.left} == {"within tolerance"}
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(array(weight), value)


def dense(name, **arguments):
    return layers.Dense(64, name=name, **arguments)


def test_kernel_within_tolerance_is_left(rng):
    model = keras.Sequential([keras.Input((64,)), dense("fc")])
    model.get_layer("fc").kernel.assign(1.04 * np.eye(64))
    batch = rng.choice([-1.0, 1.0], size=(8, 64)).astype("float32")
    assert calibrate(model, batch, tolerance=0.1).moved == ()  # 1.0816
    (row,) = calibrate(model, batch, tolerance=0.05).moved
    assert (row.found, row.reached) == (pytest.approx(1.0816), pytest.approx(1))


def test_ends_of_residual_branches_share_the_variance(rng):
    x = inputs = keras.Input((64,))
    for index in range(4):
        branch = dense(f"last{index}")(layers.ReLU()(dense(f"first{index}")(x)))
        x = layers.Add()([x, branch])
    model = keras.Model(inputs, x)
    report = calibrate(model, rng.normal(size=(32, 64)).astype("float32"))
    targets = {row.path: row.target for row in report.kernels}
    assert targets == {**{f"first{i}": 1 for i in range(4)}, **{f"last{i}": pytest.approx(0.25) for i in range(4)}}
    assert all(row.reached == pytest.approx(row.target, rel=0.05) for row in report.kernels)
    assert {row.target for row in calibrate(model, np.ones((1, 64)), target=2.0).kernels} == {2.0}


class Subclassed(keras.Model):
    """Runs its layers in another order than it holds them."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.last = layers.Dense(3, name="last")
        self.first = layers.SeparableConv1D(8, 3, activation="gelu", name="first")
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")

    def call(self, inputs):
        x = self.first(inputs)
        return self.last(self.attention(x, x))


def test_subclassed_model_in_the_order_of_running(rng):
    model, batch = Subclassed(), 5 * rng.normal(size=(16, 12, 4)).astype("float32")
    report = calibrate(model, batch)
    names = [(row.path.rpartition("/")[2], row.kernel) for row in report.kernels]
    assert names[0] == ("first", "pointwise_kernel")
    assert {name for name, _ in names[1:-1]} == {"query", "key", "value", "attention_output"}
    assert names[-1] == ("last", "kernel")
    assert np.mean(array(model(batch)) ** 2) == pytest.approx(1, rel=0.05)
    assert all(row.reached == pytest.approx(1, rel=0.05) for row in report.kernels)


@pytest.mark.parametrize(("value", "reason"), [(0.0, "its output is zero"), (np.nan, "its output is not finite")])
def test_dead_output_is_named_and_not_divided_by(rng, value, reason):
    model = keras.Sequential([keras.Input((64,)), dense("fc1"), dense("dead"), dense("fc3", bias_initializer="ones")])
    model.get_layer("dead").kernel.assign(np.full((64, 64), value))
    report = calibrate(model, 3 * rng.normal(size=(8, 64)).astype("float32"))
    assert {row.path: row.reason for row in report.left}["dead"] == reason
    np.testing.assert_array_equal(array(model.get_layer("dead").kernel), np.full((64, 64), value))
    assert [row.path for row in report.moved] == ["fc1"]


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_sizes_whose_squares_leave_single_precision(rng, size):
    model = keras.Sequential([keras.Input((64,)), dense("fc")])
    model.get_layer("fc").kernel.assign(size * rng.normal(size=(64, 64)))
    batch = rng.normal(size=(8, 64)).astype("float32")
    (row,) = calibrate(model, batch).moved
    assert np.log10(row.found) == pytest.approx(2 * np.log10(size) + np.log10(64), abs=0.2)
    assert np.mean(array(model(batch)) ** 2) == pytest.approx(1, rel=1e-4)


def test_frozen_kernel_is_left(rng):
    model = keras.Sequential([keras.Input((64,)), dense("fc1"), dense("fc2")])
    model.get_layer("fc1").trainable = False
    kernel = array(model.get_layer("fc1").kernel)
    report = calibrate(model, 9 * rng.normal(size=(8, 64)).astype("float32"))
    assert [(row.path, row.reason) for row in report.left] == [("fc1", "it is frozen")]
    assert report.left[0].reached > 10
    np.testing.assert_array_equal(array(model.get_layer("fc1").kernel), kernel)
    assert report.kernels[1].reached == pytest.approx(1, rel=1e-4)


def test_kernel_before_a_normalization_is_left(rng):
    x = inputs = keras.Input((64,))
    x = layers.BatchNormalization(name="bn", momentum=0.5)(dense("hidden")(x))
    x = dense("free")(layers.Activation("gelu")(x))
    model = keras.Model(inputs, x)
    state = [array(weight) for weight in model.non_trainable_variables]
    batch = 9 * rng.normal(size=(128, 64)).astype("float32")
    report = calibrate(model, batch)
    assert [(row.path, row.reason) for row in report.kernels] == [("hidden", "bn undoes its scale"), ("free", "")]
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        np.testing.assert_array_equal(array(variable), value)
    assert np.mean(array(model(batch, training=True)) ** 2) == pytest.approx(1, rel=0.05)


def test_kernel_that_a_normalization_and_another_layer_see_is_scaled(rng):
    inputs = keras.Input((64,))
    x = dense("both")(inputs)
    model = keras.Model(inputs, layers.Add()([layers.LayerNormalization(name="ln")(x), layers.Activation("gelu")(x)]))
    assert [row.path for row in calibrate(model, 9 * rng.normal(size=(8, 64)).astype("float32")).moved] == ["both"]


def test_frozen_batch_normalization_hides_nothing(rng):
    model = keras.Sequential([keras.Input((64,)), dense("fc"), layers.BatchNormalization(name="bn")])
    model.get_layer("bn").trainable = False
    assert [row.path for row in calibrate(model, 9 * rng.normal(size=(8, 64)).astype("float32")).moved] == ["fc"]


def test_dropout_is_off_and_seeds_stay(rng):
    batch = rng.normal(size=(64, 64)).astype("float32")

    def calibrated(rate):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((64,)), layers.Dropout(rate, seed=0), dense("fc1"), dense("fc2")])
        seeds = [array(variable) for variable in model.non_trainable_variables]
        report = calibrate(model, batch)
        for variable, value in zip(model.non_trainable_variables, seeds, strict=True):
            np.testing.assert_array_equal(array(variable), value)
        return report

    assert calibrated(0.5) == calibrated(0.5) == calibrated(0.0)


def test_bias_stays_and_counts(rng):
    model = keras.Sequential([keras.Input((64,)), dense("fc", bias_initializer=keras.initializers.Constant(0.5))])
    batch = 3 * rng.normal(size=(32, 64)).astype("float32")
    (row,) = calibrate(model, batch, tolerance=0.01).moved
    np.testing.assert_array_equal(array(model.get_layer("fc").bias), np.full(64, 0.5))
    assert row.reached == pytest.approx(1, rel=0.01)
    assert np.mean(array(model(batch)) ** 2) == pytest.approx(1, rel=0.01)


class Standardized(layers.Dense):
    """Divides its kernel by its deviation, as weight standardization does."""

    def call(self, inputs):
        return 3 * ops.matmul(inputs, self.kernel / ops.std(self.kernel))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(64, bias_initializer=keras.initializers.Constant(2), name="held"),
        Standardized(64, name="held"),
    ],
    ids=["bias", "standardized"],
)
def test_scale_that_does_not_help_is_taken_back(rng, layer):
    model = keras.Sequential([keras.Input((64,)), layer, dense("after")])
    kernel = array(layer.kernel)
    report = calibrate(model, rng.normal(size=(32, 64)).astype("float32"))
    assert report.left[0].path == "held"
    assert report.left[0].reason.startswith("scaled, its output stays at ")
    np.testing.assert_array_equal(array(layer.kernel), kernel)
    assert report.kernels[1].reached == pytest.approx(1, rel=0.05)


def test_shared_layer_by_the_mean_over_its_calls(rng):
    shared = dense("shared")
    first, second = keras.Input((64,)), keras.Input((64,))
    total = dense("after")(layers.Concatenate()([shared(first), shared(second)]))
    model = keras.Model([first, second], total)
    batches = [rng.normal(size=(16, 64)).astype("float32"), 5 * rng.normal(size=(16, 64)).astype("float32")]
    report = calibrate(model, batches, tolerance=0.01)
    outputs = np.concatenate([array(shared(batch)) for batch in batches])
    assert np.mean(outputs**2) == pytest.approx(1, rel=0.01)
    assert np.mean(array(model(batches)) ** 2) == pytest.approx(1, rel=0.01)
    assert [row.reached for row in report.kernels] == [pytest.approx(1, rel=0.01)] * 2


def test_recurrent_kernels_are_left(rng):
    model = keras.Sequential([keras.Input((5, 8)), layers.LSTM(4, name="lstm"), layers.Dense(3, name="fc")])
    report = calibrate(model, rng.normal(size=(8, 5, 8)).astype("float32"))
    assert [(row.kernel, row.reason) for row in report.left] == [("recurrent_kernel", "it is a recurrent cell's")]
    assert [row.path for row in report.moved] == ["fc"]


class Counting(layers.Dense):
    runs = 0

    def call(self, inputs):
        type(self).runs += 1
        return super().call(inputs)


def test_each_layer_runs_at_most_three_times(rng):
    model = keras.Sequential([keras.Input((64,)), *(Counting(64, activation="relu") for _ in range(30))])
    Counting.runs = 0
    assert len(calibrate(model, rng.normal(size=(4, 64)).astype("float32"), tolerance=1e-4).moved) == 30
    assert Counting.runs == 90  # once to see that the batch fits, once to measure, once scaled


def test_half_precision_keeps_kernels_exact(rng):
    batch = 3 * rng.normal(size=(64, 64)).astype("float32")
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(64, "relu", dtype="mixed_float16", name="fc1"), dense("fc2")]
    )
    kernel = array(model.get_layer("fc1").kernel)
    report = calibrate(model, batch)
    np.testing.assert_allclose(array(model.get_layer("fc1").kernel), kernel * report.kernels[0].factor, rtol=1e-6)
    assert report.kernels[0].reached == pytest.approx(1, rel=0.01)


def test_only_the_kernels_named(rng):
    model = keras.Sequential([keras.Input((64,)), dense("fc1"), dense("fc2"), dense("fc3")])
    kernel = array(model.get_layer("fc1").kernel)
    names = ["fc3/kernel", "fc2", model.get_layer("fc2").bias.path]
    report = calibrate(model, 4 * rng.normal(size=(8, 64)).astype("float32"), only=names, tolerance=1e-4)
    assert [row.path for row in report.moved] == ["fc2", "fc3"]
    np.testing.assert_array_equal(array(model.get_layer("fc1").kernel), kernel)


class Unknown(layers.Layer):
    """Mixes all positions, with a weight that no formula knows."""

    def build(self, input_shape):
        self.shift = self.add_weight(shape=(1,), initializer="ones", name="shift")

    def call(self, inputs):
        return 3 * ops.cumsum(inputs, axis=-1) + self.shift


def test_only_what_no_formula_covers(rng):
    model = keras.Sequential([keras.Input((64,)), dense("fc1"), Unknown(), dense("fc2"), layers.ReLU(), dense("fc3")])
    unplaced = initialize(model, seed=0).unplaced
    report = calibrate(model, rng.normal(size=(64, 64)).astype("float32"), only=unplaced)
    assert "fc2" in [row.path for row in report.moved]
    assert "fc1" not in [row.path for row in report.kernels]


@pytest.mark.slow
def test_mobilenet_v3_is_within_tolerance_where_no_normalization_hides_it(rng):
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV3Small((64, 64, 3), weights=None, classifier_activation=None, classes=10)
    batch = rng.uniform(0, 255, size=(16, 64, 64, 3)).astype("float32")
    report = calibrate(model, batch)
    hidden = [row for row in report.left if row.reason.endswith("undoes its scale")]
    others = [row for row in report.kernels if row not in hidden]
    assert len(report.kernels) == len([weight for weight in model.weights if len(weight.shape) == 4])
    assert len(others) >= 20
    assert all(row.reached == pytest.approx(row.target, rel=0.05) for row in others), str(report)


def small():
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2, name="fc")], name="small")


@pytest.mark.parametrize(
    ("batch", "arguments", "message"),
    [
        (np.zeros((0, 8, 8, 3)), {}, r"The batch is empty: .* shape \(0, 8, 8, 3\)"),
        (np.full((2, 8, 8, 3), np.nan), {}, "not finite"),
        (np.zeros((2, 8, 9, 3)), {}, "'small' does not take this batch"),
        (np.zeros((2, 8)), {}, "'small' does not take this batch"),
        (np.ones((2, 8, 8, 3)), {"target": 0.0}, "target is 0.0"),
        (np.ones((2, 8, 8, 3)), {"target": np.inf}, "target is inf"),
        (np.ones((2, 8, 8, 3)), {"tolerance": 0.0}, "tolerance is 0.0"),
        (np.ones((2, 8, 8, 3)), {"max_iterations": 0}, "max_iterations is 0"),
        (np.ones((2, 8, 8, 3)), {"only": ["fc", "fc9"]}, "'small' has no fc9; it has fc, fc/kernel"),
    ],
    ids=["empty", "nan", "width", "rank", "target", "infinite", "tolerance", "iterations", "only"],
)
def test_bad_input_is_named(batch, arguments, message):
    with pytest.raises(ValueError, match=message):
        calibrate(small(), batch, **arguments)


def test_model_without_a_kernel_is_named():
    model = keras.Sequential([keras.Input((3,)), layers.ReLU()], name="bare")
    with pytest.raises(ValueError, match="No layer of 'bare' has a kernel"):
        calibrate(model, np.ones((2, 3)))
