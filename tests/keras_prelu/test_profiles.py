"""Where padding has made a signal uneven over positions, the next layer's padding costs it less."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_prelu import initialize, measure_gains, predict_gains

SIZE, FILTERS = 4, 8
NEIGHBOURS = np.eye(SIZE) + np.eye(SIZE, k=1) + np.eye(SIZE, k=-1)  # what a 3-tap kernel reads of each axis


def padded_chain(explicit):
    model = keras.Sequential([keras.Input((SIZE, SIZE, FILTERS))])
    for _ in range(4):
        if explicit:
            model.add(layers.ZeroPadding2D(1))
        model.add(layers.Conv2D(FILTERS, 3, padding="valid" if explicit else "same", use_bias=False))
    return model


def factors(model):
    return [FILTERS * np.mean(np.square(kernel.numpy(), dtype="float64")) for kernel in model.weights]


def kept(convolutions):
    """The mean over positions of what taps of weight 1 sum up after some convolutions in a row."""
    return np.mean(np.linalg.matrix_power(NEIGHBOURS, convolutions) @ np.ones(SIZE)) ** 2


@pytest.mark.parametrize("explicit", [False, True], ids=["same", "zero_padding"])
def test_second_moment_of_each_position_goes_through_padded_convolutions(explicit):
    model = padded_chain(explicit)
    expected = [np.prod(factors(model)[:number]) * kept(number) for number in range(1, 5)]
    rows = predict_gains(model).rows
    np.testing.assert_allclose([row.forward_mean_square for row in rows], expected, rtol=1e-6)


def test_gradient_of_each_position_goes_through_padded_convolutions():
    model = padded_chain(explicit=True)
    expected = [np.prod(factors(model)[number:]) * kept(4 - number) for number in range(1, 5)]
    rows = predict_gains(model).rows
    np.testing.assert_allclose([row.backward_mean_square for row in rows], expected, rtol=1e-6)


def test_padding_before_normalizations_and_poolings_is_as_measured():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 64))])
    for stride in (1, 1, 2, 1):
        model.add(layers.ZeroPadding2D(1))
        model.add(layers.Conv2D(128, 3, stride, use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
        model.add(layers.AveragePooling2D(2, 1, "same"))
    batch = np.random.default_rng(0).standard_normal((128, 6, 6, 64), "float32")
    predicted, measured = predict_gains(model, batch).rows, measure_gains(model, batch).rows
    for name, tolerance in (("forward_mean_square", 0.1), ("backward_mean_square", 0.15)):
        np.testing.assert_allclose(
            *([getattr(row, name) for row in rows] for rows in (predicted, measured)), rtol=tolerance
        )


def test_gradient_of_normalized_channels_of_few_weights_is_as_measured():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12, 12, 512))])
    for dilation in (1, 1, 2):
        model.add(layers.DepthwiseConv2D(3, padding="same", dilation_rate=dilation))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
    initialize(model, seed=0)
    batch = np.random.default_rng(0).standard_normal((32, 12, 12, 512), "float32")
    predicted, measured = predict_gains(model, batch).rows, measure_gains(model, batch).rows
    np.testing.assert_allclose(
        *([row.backward_mean_square for row in rows] for rows in (predicted, measured)), rtol=0.1
    )
