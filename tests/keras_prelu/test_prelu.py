import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu import PReLU, prelu


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def reference(x, alpha):
    return np.maximum(0.0, x) + alpha * np.minimum(0.0, x)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, -0.5, 1.5])
def test_function_is_equation_1(rng, alpha):
    x = rng.normal(size=(4, 5)).astype("float32")
    np.testing.assert_allclose(prelu(x, alpha), reference(x.astype("float64"), alpha), atol=1e-6)


def test_gradients_are_equations_2_and_3(rng):
    x = rng.normal(size=(4, 3, 3, 5)).astype("float32")
    upstream = rng.normal(size=x.shape).astype("float32")
    alpha = rng.normal(size=(1, 1, 5)).astype("float32")
    with tf.GradientTape() as tape:
        inputs, slopes = tf.constant(x), tf.constant(alpha)
        tape.watch([inputs, slopes])
        outputs = prelu(inputs, slopes)
    dx, dalpha = tape.gradient(outputs, [inputs, slopes], upstream)
    x, upstream = x.astype("float64"), upstream.astype("float64")
    np.testing.assert_allclose(dx, np.where(x > 0, upstream, alpha * upstream), atol=1e-6)
    expected = np.where(x > 0, 0, upstream * x).sum(axis=(0, 1, 2), keepdims=True)[0]
    np.testing.assert_allclose(dalpha, expected, rtol=1e-5, atol=1e-5)


def test_zero_belongs_to_the_branch_of_the_slope():
    x = tf.constant([0.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = prelu(x, 0.3)
    np.testing.assert_allclose(tape.gradient(y, x), [0.3], rtol=1e-6)


def test_differentiates_twice():
    x, alpha = tf.constant([-2.0, 3.0]), tf.constant([0.5, 0.5])
    with tf.GradientTape() as outer:
        outer.watch(alpha)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(prelu(x, alpha) ** 2)
        dx = inner.gradient(y, x)  # 2 a^2 x where x <= 0, 2 x elsewhere
    np.testing.assert_allclose(dx, [2 * 0.25 * -2, 6.0], rtol=1e-6)
    np.testing.assert_allclose(outer.gradient(dx, alpha), [4 * 0.5 * -2, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "arguments", "expected"),
    [
        ((None, 7), {}, (7,)),
        ((None, 9, 8, 7), {}, (1, 1, 7)),
        ((None, None, None, 7), {}, (1, 1, 7)),
        ((None, 7, 9, 8), {"data_format": "channels_first"}, (7, 1, 1)),
        ((None, 9, 8, 7), {"slope_per": "layer"}, (1, 1, 1)),
        ((None, None, None, None), {"slope_per": "layer"}, (1, 1, 1)),
    ],
    ids=["dense", "image", "unknown-size", "channels-first", "layer", "layer-unknown-channels"],
)
def test_slopes_have_the_shape_of_what_has_its_own(shape, arguments, expected):
    layer = PReLU(**arguments)
    layer.build(shape)
    assert layer.alpha.shape == expected
    np.testing.assert_array_equal(layer.alpha, np.full(expected, 0.25, "float32"))


def test_layer_scales_each_channel_by_its_own_slope(rng):
    layer = PReLU()
    layer.build((None, 4, 4, 3))
    layer.alpha.assign(np.array([0.1, 0.5, -2.0]).reshape(1, 1, 3))
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(layer(x), reference(x.astype("float64"), [0.1, 0.5, -2.0]), atol=1e-6)


def test_same_as_keras_layer_where_both_share_height_and_width(rng):
    ours = PReLU(0.3)
    theirs = keras.layers.PReLU(keras.initializers.Constant(0.3), shared_axes=[1, 2])
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_array_equal(ours(x), theirs(x))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_keeps_float32_slopes(dtype):
    layer = PReLU(dtype=f"mixed_{dtype}")
    outputs = layer(np.array([[-2.0, 4.0]], "float32"))
    assert (keras.backend.standardize_dtype(outputs.dtype), layer.alpha.dtype) == (dtype, "float32")
    np.testing.assert_array_equal(keras.ops.cast(outputs, "float32"), [[-0.5, 4.0]])


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_compiled_gradients_equal_eager_ones(rng, jit_compile):
    layer = PReLU()
    x = tf.constant(rng.normal(size=(2, 4, 4, 3)).astype("float32"))
    layer(x)

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 3)
        return tape.gradient(loss, [x, layer.alpha.value])

    for compiled, eager in zip(tf.function(gradients, jit_compile=jit_compile)(), gradients(), strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("written_as", ["keras", "saved_model"])
def test_saved_model_answers_alike(rng, tmp_path, written_as):
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            PReLU(keras.initializers.RandomNormal(seed=1), alpha_regularizer="l2"),
            PReLU(slope_per="layer"),
        ]
    )
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    if written_as == "keras":
        model.save(tmp_path / "model.keras")
        outputs = keras.saving.load_model(tmp_path / "model.keras")(x)
    else:
        model.export(tmp_path / "model", verbose=False)
        loaded = tf.saved_model.load(str(tmp_path / "model"))  # kept: its functions do not keep its variables
        outputs = loaded.serve(x)
    np.testing.assert_array_equal(outputs, model(x))


def test_config_round_trip_keeps_every_argument():
    layer = PReLU(
        0.1,
        slope_per="layer",
        data_format="channels_first",
        alpha_regularizer="l1",
        alpha_constraint="non_neg",
    )
    config = layer.get_config()
    assert PReLU.from_config(config).get_config() == config
    assert config["slope_per"] == "layer"
    assert config["alpha_initializer"]["config"] == {"value": 0.1}


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"slope_per": "pixel"}, (None, 3), "slope_per is 'pixel', but must be"),
        ({"data_format": "last"}, (None, 3), "data_format is 'last', but must be"),
        ({}, (None, 4, 4, None), "number of channels, axis 3 of the input shape"),
        ({}, (None,), r"not \(None,\)"),
    ],
    ids=["slope-per", "data-format", "unknown-channels", "no-channels"],
)
def test_wrong_arguments_are_named(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        PReLU(**arguments).build(shape)


def test_another_number_of_channels_is_refused():
    layer = PReLU()
    layer.build((None, 4, 4, 3))
    with pytest.raises(ValueError, match="expected axis 3"):
        layer(np.zeros((1, 4, 4, 5), "float32"))
