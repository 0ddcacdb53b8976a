"""Each rule against a running network: a kernel, the layer, a kernel."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_prelu import initialize, measure_gains, predict_gains

WIDTH = 96


def squeeze_and_excitation(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(WIDTH, 1, activation="relu")(gate)
    return layers.Multiply()([x, layers.Conv2D(WIDTH, 1, activation="sigmoid")(gate)])


def two_branches(combine):
    return lambda x: combine([layers.Conv2D(WIDTH, 1, activation="relu")(x), layers.Conv2D(WIDTH, 1)(x)])


BLOCKS = {
    "relu": layers.ReLU(),
    "gelu": layers.Activation("gelu"),
    "max pooling": lambda x: layers.MaxPooling2D(2)(layers.ReLU()(x)),
    "overlapping max pooling": lambda x: layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(x)),
    "mean pooling": lambda x: layers.AveragePooling2D(3, 1, padding="same")(layers.ReLU()(x)),
    "mean of all": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(layers.ReLU()(x)),
    "flatten": lambda x: layers.Reshape((1, 1, 64 * WIDTH))(layers.ReLU()(x)),
    "padding": layers.ZeroPadding2D(2),
    "upsampling": layers.UpSampling2D(2),
    "batch normalization": lambda x: layers.BatchNormalization()(layers.ReLU()(x)),
    "layer normalization": lambda x: layers.LayerNormalization()(layers.ReLU()(x)),
    "group normalization": lambda x: layers.GroupNormalization(8)(layers.ReLU()(x)),
    "dropout": layers.Dropout(0.4),
    "add": two_branches(layers.Add()),
    "subtract": two_branches(layers.Subtract()),
    "multiply": two_branches(layers.Multiply()),
    "concatenate": two_branches(layers.Concatenate()),
    "the same twice": lambda x: layers.Add()([layers.AveragePooling2D(2)(x), layers.AveragePooling2D(2)(x)]),
    "residual": lambda x: layers.ReLU()(x + layers.Conv2D(WIDTH, 3, padding="same")(layers.ReLU()(x))),
    "squeeze and excitation": squeeze_and_excitation,
    "strided depthwise": layers.DepthwiseConv2D(3, strides=2, padding="same"),
    "transposed": layers.Conv2DTranspose(WIDTH, 4, strides=2, padding="same"),
    "affine operations": lambda x: ops.relu(3.0 - x) / 2.0,
}


def compare(block, seed):
    inputs = keras.Input((8, 8, 64))
    x = block(layers.Conv2D(WIDTH, 1, name="before")(inputs))
    model = keras.Model(inputs, layers.Conv2D(WIDTH, 1, name="after")(x))
    initialize(model, seed=seed)
    batch = np.random.default_rng(seed).standard_normal((24, 8, 8, 64)).astype("float32")
    predicted = {row.name: row for row in predict_gains(model, batch).rows}
    measured = {row.name: row for row in measure_gains(model, batch, seed=seed).rows}
    forward = predicted["after"].forward_mean_square / measured["after"].forward_mean_square
    return forward, predicted["before"].backward_mean_square / measured["before"].backward_mean_square


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS)
def test_prediction_meets_the_measurement(name):
    forward, backward = np.mean([compare(BLOCKS[name], seed) for seed in range(3)], axis=0)
    assert forward == pytest.approx(1, abs=0.1)
    assert backward == pytest.approx(1, abs=0.15)


@pytest.mark.slow
def test_attention_at_its_start_is_nearly_as_measured():
    inputs = keras.Input((32, 64))
    x = layers.Dense(64, name="before")(inputs)
    model = keras.Model(inputs, layers.Dense(64, name="after")(layers.MultiHeadAttention(4, 16)(x, x)))
    initialize(model, seed=0)
    batch = np.random.default_rng(0).standard_normal((32, 32, 64)).astype("float32")
    predicted = {row.name: row for row in predict_gains(model, batch).rows}
    measured = {row.name: row for row in measure_gains(model, batch).rows}
    assert predicted["after"].forward_mean_square == pytest.approx(measured["after"].forward_mean_square, rel=0.25)
    assert predicted["before"].backward_mean_square == pytest.approx(measured["before"].backward_mean_square, rel=0.35)


@pytest.mark.parametrize("branches", [1, 2, 4, 8])
def test_layer_behind_a_sum_of_relu_branches_has_variance_1(branches):
    inputs = keras.Input((256,))
    terms = [layers.Dense(256, activation="relu")(inputs) for _ in range(branches)]
    model = keras.Model(inputs, layers.Dense(2048)(layers.Add()(terms) if branches > 1 else terms[0]))
    initialize(model, seed=0)
    outputs = np.asarray(model(np.random.default_rng(0).standard_normal((256, 256)).astype("float32")))
    assert np.var(outputs) == pytest.approx(1, abs=0.05)
