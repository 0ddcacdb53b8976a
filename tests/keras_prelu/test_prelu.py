"""The PReLU layer, on any Keras backend."""

import keras
import numpy as np
import pytest

from keras_prelu import PReLU
from keras_prelu.layer.functional import prelu


def outputs_of(layer, x):
    return keras.ops.convert_to_numpy(layer(x))


def expected(x, alpha):
    return np.maximum(0.0, x) + alpha * np.minimum(0.0, x)


@pytest.mark.parametrize(
    ("shape", "arguments", "slopes"),
    [
        ((None, 7), {}, (7,)),
        ((None, 8, 7), {}, (1, 7)),
        ((None, 9, 8, 7), {}, (1, 1, 7)),
        ((None, None, None, 7), {}, (1, 1, 7)),
        ((None, 3, 9, 8, 7), {}, (1, 1, 1, 7)),
        ((None, 7, 9, 8), {"data_format": "channels_first"}, (7, 1, 1)),
        ((None, 9, 8, 7), {"slope_per": "layer"}, (1, 1, 1)),
        ((None, None, None, None), {"slope_per": "layer"}, (1, 1, 1)),
        ((None, 9, 8, 6), {"slope_per": "group", "groups": 3}, (1, 1, 3)),
        ((None, 6, 9, 8), {"slope_per": "group", "groups": 3, "data_format": "channels_first"}, (3, 1, 1)),
        ((None, 9, 8, 7), {"slope_per": "element"}, (9, 8, 7)),
        ((None, 9, 8, 7), {"shared_axes": []}, (9, 8, 7)),
        ((None, 9, 8, 7), {"shared_axes": [1, 2]}, (1, 1, 7)),
        ((None, 9, 8, 7), {"shared_axes": (-3, -2)}, (1, 1, 7)),
        ((None, 9, 8, 7), {"shared_axes": -1}, (9, 8, 1)),
        ((None, 9, 8, 7), {"shared_axes": [1, -3]}, (1, 8, 7)),
    ],
)
def test_slopes_have_the_shape_of_what_has_its_own(shape, arguments, slopes):
    layer = PReLU(**arguments)
    layer.build(shape)
    assert layer.alpha.shape == slopes
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.alpha), np.full(slopes, 0.25, "float32"))


def test_each_channel_has_its_own_slope(rng):
    layer = PReLU()
    layer.build((None, 4, 4, 3))
    layer.alpha.assign(np.array([0.1, 0.5, -2.0]).reshape(1, 1, 3))
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(outputs_of(layer, x), expected(x.astype("float64"), [0.1, 0.5, -2.0]), atol=1e-6)


def test_neighbouring_channels_of_a_group_share_a_slope(rng, gradients):
    layer = PReLU(slope_per="group", groups=2)
    layer.build((None, 4, 6))
    layer.alpha.assign([[0.1, 0.5]])
    x = rng.normal(size=(2, 4, 6)).astype("float32")
    np.testing.assert_allclose(outputs_of(layer, x), expected(x.astype("float64"), [0.1] * 3 + [0.5] * 3), atol=1e-6)

    def stateless(x, alpha):
        return layer.stateless_call([alpha], [], x)[0]

    upstream = rng.normal(size=x.shape)
    _, dalpha = gradients(stateless, [x, np.array([[0.1, 0.5]], "float32")], upstream)
    products = upstream * np.minimum(x, 0)
    np.testing.assert_allclose(dalpha, products.sum(axis=(0, 1)).reshape(1, 2, 3).sum(axis=2), rtol=1e-5)


def test_height_and_width_may_change():
    layer = PReLU()
    assert layer(np.ones((1, 4, 4, 3), "float32")).shape == (1, 4, 4, 3)
    assert layer(np.ones((2, 9, 7, 3), "float32")).shape == (2, 9, 7, 3)


@pytest.mark.slow
@pytest.mark.parametrize("shared_axes", [None, [1], [1, 2]])
def test_takes_the_place_of_the_keras_layer(rng, shared_axes):
    """A model trains the same when only the import changes, with slopes that start at 0."""

    def trained(layer_class):
        slopes = {} if shared_axes is not None or layer_class is keras.layers.PReLU else {"slope_per": "element"}
        model = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
                layer_class("zeros", "l2", None, shared_axes, **slopes),
                keras.layers.Flatten(),
                keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=2)),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()

    x = rng.normal(size=(20, 6, 6, 2)).astype("float32")
    y = rng.normal(size=(20, 3)).astype("float32")
    for ours, theirs in zip(trained(PReLU), trained(keras.layers.PReLU), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_keeps_float32_slopes(dtype):
    layer = PReLU(dtype=f"mixed_{dtype}")
    outputs = layer(np.array([[-2.0, 4.0]], "float32"))
    assert (keras.backend.standardize_dtype(outputs.dtype), layer.alpha.dtype) == (dtype, "float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")), [[-0.5, 4.0]])


def test_mask_passes_through():
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(np.array([[1, 2, 0]]))
    mask = keras.ops.convert_to_numpy(PReLU()(embedded)._keras_mask)
    np.testing.assert_array_equal(mask, [[True, True, False]])


def test_regularizer_and_constraint_act_on_the_slopes():
    layer = PReLU(0.5, alpha_regularizer=keras.regularizers.L2(0.1), alpha_constraint="non_neg")
    layer.build((None, 3))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.losses[0]), 0.1 * 3 * 0.5**2, rtol=1e-6)
    constrained = keras.ops.convert_to_numpy(layer.alpha.constraint(keras.ops.array([-1.0, 0.0, 2.0])))
    np.testing.assert_array_equal(constrained, [0, 0, 2])


ARGUMENTS = [
    {},
    {"alpha_initializer": 0.1, "alpha_regularizer": "l1", "alpha_constraint": "non_neg", "slope_per": "layer"},
    {"alpha_initializer": "ones", "shared_axes": [-3, -2], "data_format": "channels_last"},
    {"slope_per": "group", "groups": 2, "dtype": "mixed_bfloat16"},
    {"slope_per": "element", "name": "rectifier", "trainable": False},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_config_round_trip_keeps_every_argument(arguments):
    config = PReLU(**arguments).get_config()
    assert PReLU.from_config(config).get_config() == config


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_saved_model_answers_alike(rng, tmp_path, arguments):
    model = keras.Sequential([keras.Input((4, 4, 6)), PReLU(**arguments)])
    slopes = rng.normal(size=model.layers[0].alpha.shape)
    model.layers[0].alpha.assign(slopes)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(2, 4, 4, 6)).astype("float32")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    for ours, before in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, before)
    compare = [keras.ops.convert_to_numpy(keras.ops.cast(each(x), "float32")) for each in (loaded, model)]
    np.testing.assert_array_equal(*compare)


@pytest.mark.parametrize("shared_axes", [None, [1, 2], [-1], [0]], ids=str)
def test_built_keras_layer_is_taken_over(rng, shared_axes):
    theirs = keras.layers.PReLU(keras.initializers.RandomNormal(seed=1), "l2", None, shared_axes, name="slopes")
    x = rng.normal(size=(2, 4, 5, 3)).astype("float32")
    before = outputs_of(theirs, x)
    ours = PReLU.from_keras(theirs)
    np.testing.assert_allclose(outputs_of(ours, x), before, atol=1e-6)
    assert (ours.name, ours.alpha_regularizer) == ("slopes", theirs.alpha_regularizer)


def test_slopes_of_pixels_are_averaged_to_channels():
    theirs = keras.layers.PReLU(keras.initializers.RandomNormal(seed=1))
    theirs.build((None, 4, 5, 3))
    slopes = keras.ops.convert_to_numpy(theirs.alpha)
    ours = PReLU.from_keras(theirs, slope_per="channel")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours.alpha), slopes.mean(axis=(0, 1), keepdims=True), rtol=1e-6
    )
    assert ours(np.ones((1, 9, 9, 3), "float32")).shape == (1, 9, 9, 3)
    shared = PReLU.from_keras(theirs, slope_per="layer")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(shared.alpha).item(), slopes.mean(), rtol=1e-5)


def test_unbuilt_keras_layer_is_taken_over():
    ours = PReLU.from_keras(keras.layers.PReLU("ones", shared_axes=[1], dtype="mixed_float16", trainable=False))
    ours.build((None, 4, 3))
    assert (ours.alpha.shape, ours.compute_dtype, ours.trainable) == ((1, 3), "float16", False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours.alpha), np.ones((1, 3)))


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"slope_per": "pixel"}, (None, 3), "slope_per is 'pixel', but must be one of 'channel', 'group'"),
        ({"data_format": "last"}, (None, 3), "data_format is 'last', but must be"),
        ({"slope_per": "layer", "shared_axes": [1]}, (None, 3), "shared_axes=.1. and slope_per='layer' both say"),
        ({"groups": 2}, (None, 4), "go together, not 'channel' and 2"),
        ({"slope_per": "group"}, (None, 4), "go together, not 'group' and None"),
        ({"slope_per": "group", "groups": 0}, (None, 4), "groups is 0, but must be 1 or more"),
        ({"slope_per": "group", "groups": 3}, (None, 4), "4 channels can't be cut into 3 groups"),
        ({"shared_axes": [0]}, (None, 8, 8, 3), "each must be one of 1 to 3, .* Axis 0, the batch"),
        ({"shared_axes": [-4]}, (None, 8, 8, 3), "Axis 0, the batch"),
        ({"shared_axes": [4]}, (None, 8, 8, 3), r"shared_axes=\[4\] does not fit an input of 4 axes"),
        ({}, (None, 4, 4, None), r"unknown along axes that have slopes of their own \(3\)"),
        ({"slope_per": "element"}, (None, None, None, 3), r"slopes of their own \(1, 2, 3\)"),
        ({}, (None,), r"not \(None,\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        PReLU(**arguments).build(shape)


@pytest.mark.parametrize(
    ("layer", "slope_per", "message"),
    [
        (keras.layers.ReLU(), None, "takes a keras.layers.PReLU, not ReLU"),
        (keras.layers.PReLU(), "group", "slope_per is 'group', but must be None"),
    ],
)
def test_only_keras_slopes_are_taken_over(layer, slope_per, message):
    with pytest.raises(ValueError, match=message):
        PReLU.from_keras(layer, slope_per)


def test_another_number_of_channels_is_refused():
    layer = PReLU()
    layer.build((None, 4, 4, 3))
    with pytest.raises(ValueError, match="expected axis 3"):
        layer(np.zeros((1, 4, 4, 5), "float32"))


def test_layer_is_the_function(rng):
    x = rng.normal(size=(2, 5)).astype("float32")
    np.testing.assert_array_equal(outputs_of(PReLU(), x), keras.ops.convert_to_numpy(prelu(x, 0.25)))
