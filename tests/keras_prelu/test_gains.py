import keras
import numpy as np
import pytest
from keras import layers

from keras_prelu import PReLU
from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.predict import predict_gains


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def normal(deviation, seed):
    return keras.initializers.RandomNormal(0, deviation, seed=seed)


def column(report, name):
    return [getattr(row, name) for row in report.rows]


def test_gains_are_equations_7_to_15_of_the_weights_as_they_are(rng):
    model = keras.Sequential(
        [
            keras.Input((9, 9, 3)),
            layers.Conv2D(8, 3, name="conv1"),
            PReLU(name="prelu1"),
            layers.SeparableConv2D(6, 3, name="conv2", activation="relu"),
            layers.Flatten(),
            layers.Dense(5, name="fc1"),
            layers.LeakyReLU(0.5),
            layers.Dense(4, activation="softmax", name="fc2"),
        ]
    )
    model.get_layer("prelu1").alpha.assign(rng.normal(size=(1, 1, 8)))
    slope = np.sqrt(np.mean(np.square(model.get_layer("prelu1").alpha)))
    conv1, conv2, fc1, fc2 = (model.get_layer(name) for name in ("conv1", "conv2", "fc1", "fc2"))
    square = {
        id(kernel): np.mean(np.square(np.asarray(kernel, "float64")))
        for kernel in (conv1.kernel, conv2.depthwise_kernel, conv2.pointwise_kernel, fc1.kernel, fc2.kernel)
    }
    separable = square[id(conv2.depthwise_kernel)] * square[id(conv2.pointwise_kernel)]

    report = predict_gains(model)
    assert column(report, "name") == ["conv1", "conv2", "fc1", "fc2"]
    np.testing.assert_allclose(column(report, "slope_before"), [1, slope, 0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(column(report, "slope_after"), [slope, 0, 0.5, 1], rtol=1e-6)
    forward = [
        27 * square[id(conv1.kernel)],
        9 * 8 * separable * (1 + slope**2) / 2,
        25 * 6 * square[id(fc1.kernel)] / 2,
        5 * square[id(fc2.kernel)] * (1 + 0.5**2) / 2,
    ]
    backward = [
        9 * 8 * square[id(conv1.kernel)] * (1 + slope**2) / 2,
        9 * 6 * separable / 2,
        5 * square[id(fc1.kernel)] * (1 + 0.5**2) / 2,
        4 * square[id(fc2.kernel)],
    ]
    np.testing.assert_allclose(column(report, "forward_gain"), forward, rtol=1e-6)
    np.testing.assert_allclose(column(report, "backward_gain"), backward, rtol=1e-6)
    np.testing.assert_allclose(column(report, "forward_mean_square"), np.cumprod(forward), rtol=1e-6)
    # the gradient at a layer's output has passed the layers above it and the rectifier after it
    rectifiers = [(1 + slope**2) / 2, 1 / 2, (1 + 0.5**2) / 2, 1]
    # and 5 x 5 positions above conv2 feed 7 x 7 below it
    above = [backward[1] * backward[2] * backward[3] * 25 / 49, backward[2] * backward[3], backward[3], 1]
    np.testing.assert_allclose(column(report, "backward_mean_square"), np.multiply(above, rectifiers), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.0, 0.6])
def test_prediction_meets_the_measurement_at_any_depth(rng, slope):
    width, depth = 256, 10
    ratios = []
    for seed in range(3):
        model = keras.Sequential([keras.Input((width,))])
        for index in range(depth):
            deviation = (1.0 + 0.1 * index) / np.sqrt(width)
            model.add(layers.Dense(width, kernel_initializer=normal(deviation, seed * depth + index)))
            model.add(PReLU(slope))
        measured = measure_gains(model, rng.normal(size=(256, width)).astype("float32"))
        predicted = predict_gains(model)
        ratios.append(
            [
                np.divide(column(measured, quantity), column(predicted, quantity))
                for quantity in ("forward_mean_square", "backward_mean_square")
            ]
        )
    # Which weights they are makes 0.3 in the logarithm after ten layers. A wrong slope would make more in two layers.
    assert np.abs(np.mean(np.log(ratios), axis=0)).max() < 0.4


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
def test_prediction_meets_the_measurement_in_a_residual_network(rng, normalized):
    width = 256
    inputs = keras.Input((width,))
    x = layers.Dense(width, kernel_initializer=normal(1 / 16, 100), name="stem")(inputs)
    for block in range(6):
        branch = layers.ReLU()(layers.BatchNormalization()(x) if normalized else x)
        branch = layers.Dense(width, kernel_initializer=normal(np.sqrt(2) / 16, block), name=f"block{block}")(branch)
        x = layers.Add()([x, branch])
    model = keras.Model(inputs, layers.Dense(width, kernel_initializer=normal(1 / 16, 101), name="last")(x))
    measured = measure_gains(model, rng.normal(size=(256, width)).astype("float32"))
    predicted = predict_gains(model)
    assert column(measured, "name") == column(predicted, "name")
    for quantity in ("forward_mean_square", "backward_mean_square"):
        # Units differ in their deviation, by which a normalization divides the gradient of each.
        np.testing.assert_allclose(column(measured, quantity), column(predicted, quantity), rtol=0.4, err_msg=quantity)
    # without normalization each of six sums doubles the signal; with it each adds 1
    growth = predicted.rows[-1].forward_mean_square / predicted.rows[0].forward_mean_square
    assert growth == pytest.approx(7 if normalized else 2**6, rel=0.05)


@pytest.mark.parametrize(
    "normalization", [layers.BatchNormalization, layers.LayerNormalization, layers.RMSNormalization]
)
def test_normalization_behind_a_rectifier_divides_the_gradient_by_its_own_measure(rng, normalization):
    width = 512
    model = keras.Sequential([keras.Input((width,)), layers.Dense(width, kernel_initializer=normal(1 / 20, 1))])
    model.add(layers.LeakyReLU(0.25))
    model.add(normalization())
    model.add(layers.Dense(width, kernel_initializer=normal(1 / 20, 2)))
    measured = measure_gains(model, rng.normal(size=(512, width)).astype("float32"))
    ratio = column(measured, "backward_mean_square")[0] / column(predict_gains(model), "backward_mean_square")[0]
    assert ratio == pytest.approx(1, abs=0.05)


def test_what_is_not_known_is_not_a_number_until_a_normalization():
    inputs = keras.Input((4, 8))
    x = layers.Dense(8, activation="gelu", name="fc1")(inputs)
    x = layers.GRU(8, return_sequences=True)(x)
    x = layers.Dense(8, name="fc2")(x)
    x = layers.LayerNormalization()(x)
    model = keras.Model(inputs, layers.Dense(3, name="fc3")(x))
    rows = {row.name: row for row in predict_gains(model).rows}
    assert np.isfinite(rows["fc1"].forward_mean_square)
    assert np.isnan(rows["fc2"].forward_mean_square)
    assert np.isfinite(rows["fc3"].forward_mean_square)
    assert np.isnan(rows["fc1"].backward_mean_square)


def test_zero_kernels_predict_zero():
    inputs = keras.Input((4,))
    branches = [layers.Dense(4, kernel_initializer="zeros", name=f"zero{index}")(inputs) for index in range(2)]
    model = keras.Model(inputs, layers.Dense(3, name="last")(layers.BatchNormalization()(layers.Add()(branches))))
    rows = predict_gains(model).rows
    assert [row.forward_mean_square for row in rows[:2]] == [0, 0]
    assert rows[-1].forward_mean_square == 0


def test_table_shows_the_products():
    model = keras.Sequential([keras.Input((4,))])
    for index in range(3):
        model.add(layers.Dense(4, "relu", kernel_initializer="ones", name=f"fc{index}"))
    *_, last = str(predict_gains(model)).splitlines()
    assert last.split() == ["fc2", "0", "0", "2", "16", "2", "0.5", "0.494"]


def test_model_without_a_graph_is_named():
    with pytest.raises(ValueError, match="'unbuilt' is not built"):
        predict_gains(keras.Sequential([layers.Dense(2)], name="unbuilt"))


def test_slopes_inside_a_layer_must_be_built():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=PReLU(0.5), name="fc")], name="fresh")
    with pytest.raises(ValueError, match=r"'fresh' is not built and has no slopes yet: .* call it on a batch"):
        predict_gains(model)
    model(np.zeros((1, 4), "float32"))
    assert predict_gains(model).rows[0].slope_after == pytest.approx(0.5)
