import keras
import pytest
from keras import layers

from keras_prelu import PReLU
from keras_prelu.networks.multiply_adds import multiply_adds


def test_layers_are_counted_by_hand():
    model = keras.Sequential(
        [
            keras.Input((20, 30, 4)),
            layers.Conv2D(6, (3, 5), strides=2),  # 9 x 13 positions
            PReLU(),
            layers.Conv2D(8, 3, padding="same", groups=2, use_bias=False),
            layers.MaxPooling2D(2),  # 4 x 6 positions
            layers.Dense(5),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(7),
        ]
    )
    convolutions = 9 * 13 * (6 * 3 * 5 * 4) + 9 * 13 * (8 * 9 * 3)
    assert multiply_adds(model) == convolutions + 4 * 6 * (8 * 5) + (4 * 6 * 5) * 7


def test_channels_first_costs_as_much():
    model = keras.Sequential([keras.Input((4, 20, 30)), layers.Conv2D(6, 3, data_format="channels_first")])
    assert multiply_adds(model) == 18 * 28 * (6 * 9 * 4)


def test_each_call_counts_also_in_a_nested_model():
    images = keras.Input((10, 10, 4))
    convolution = layers.Conv2D(4, 3, padding="same")
    body = keras.Sequential([keras.Input((10, 10, 4)), convolution, layers.MaxPooling2D(2)])
    model = keras.Model(images, body(convolution(convolution(images))))
    assert multiply_adds(model) == 3 * 100 * (4 * 9 * 4)


def test_unknown_image_size_is_refused():
    model = keras.Sequential([keras.Input((None, 30, 4)), layers.Conv2D(6, 3, name="conv1")])
    with pytest.raises(ValueError, match=r"output of conv1 is \(None, None, 28, 6\)"):
        multiply_adds(model)


def test_layer_of_unknown_cost_is_named():
    model = keras.Sequential([keras.Input((8, 8, 4)), layers.DepthwiseConv2D(3, name="depthwise")])
    with pytest.raises(ValueError, match="depthwise, a DepthwiseConv2D"):
        multiply_adds(model)
