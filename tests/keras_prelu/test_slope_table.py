import keras
import numpy as np
import pytest
from keras import layers

from keras_prelu import PReLU
from keras_prelu.layer.slopes import slope_layers
from keras_prelu.signals.slope_table import slope_table


@pytest.fixture
def table_1():
    """The first rows of the paper's Table 1, with slopes of their own, in a model with one nested inside."""
    images = keras.Input((20, 20, 3))
    x = layers.Conv2D(8, 7, strides=2, name="conv1")(images)
    x = PReLU(name="prelu1")(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(name="pool1")(x)
    stage = keras.Sequential(
        [
            keras.Input((3, 3, 8)),
            layers.Conv2D(6, (2, 1), strides=(2, 1), name="conv"),
            layers.PReLU(shared_axes=[1, 2]),
        ],
        name="stage2",
    )
    x = layers.LeakyReLU()(layers.Flatten()(stage(x)))
    x = PReLU(0.5, slope_per="layer", name="prelu_fc1")(layers.Dense(10, name="fc1")(x))
    model = keras.Model(images, layers.ReLU()(layers.Dense(2)(x)))
    model.get_layer("prelu1").alpha.assign(np.arange(8).reshape(1, 1, 8) / 8)
    stage.layers[-1].alpha.assign(np.array([-1, 0, 0, 0, 0, 4.0]).reshape(1, 1, 6))
    return model


def test_rows_are_those_of_the_learnt_rectifiers(table_1):
    rows = slope_table(table_1).rows
    assert [(row.layer, row.spec, row.num_slopes) for row in rows] == [
        ("conv1", "7x7, 8, /2", 8),
        ("stage2/conv", "2x1, 6, /2x1", 6),
        ("fc1", "10", 1),
    ]


def test_statistics_equal_numpy(table_1):
    for row, slopes in zip(
        slope_table(table_1).rows, [np.arange(8) / 8, np.array([-1, 0, 0, 0, 0, 4]), np.array([0.5])], strict=True
    ):
        statistics = (row.mean, row.minimum, row.maximum, row.standard_deviation)
        np.testing.assert_allclose(statistics, (slopes.mean(), slopes.min(), slopes.max(), slopes.std()), rtol=1e-6)


def test_table_shows_a_shared_slope_as_its_value(table_1):
    *_, last = str(slope_table(table_1)).splitlines()
    assert last.split() == ["fc1", "10", "prelu_fc1", "1", "0.5", "-", "-", "-"]


def test_layer_before_is_that_of_the_same_branch():
    images = keras.Input((8, 8, 3))
    branches = [layers.Conv2D(4, 3, name=f"conv_{side}", padding="same")(images) for side in ("left", "right")]
    rectified = [PReLU(name=f"prelu_{side}")(x) for side, x in zip(("left", "right"), branches, strict=True)]
    model = keras.Model(images, layers.Add()(rectified))
    assert [(row.layer, row.rectifier) for row in slope_table(model).rows] == [
        ("conv_left", "prelu_left"),
        ("conv_right", "prelu_right"),
    ]


def test_layer_before_an_operation_of_keras_ops():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(images / 127.5 - 1)
    model = keras.Model(images, PReLU(name="prelu")(x * 2))
    assert [(row.layer, row.rectifier) for row in slope_table(model).rows] == [("conv", "prelu")]


def test_rectifier_with_no_layer_before_it():
    model = keras.Sequential([keras.Input((3,)), PReLU(name="prelu")])
    (row,) = slope_table(model).rows
    assert (row.layer, row.spec, row.rectifier) == ("", "", "prelu")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.first = layers.Dense(4, activation=PReLU(), name="first")
        self.second = layers.Dense(2, name="second")
        self.prelu = PReLU()

    def call(self, inputs):
        return self.prelu(self.second(self.first(inputs)))


def test_subclassed_model_by_the_order_of_its_layers():
    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    assert [row.layer.rpartition("/")[2] for row in slope_table(model).rows] == ["first", "second"]


def test_shared_rectifier_is_listed_once():
    prelu, inputs = PReLU(), keras.Input((4,))
    model = keras.Model(inputs, prelu(layers.Dense(4)(prelu(layers.Dense(4)(inputs)))))
    assert slope_layers(model) == [prelu]


@pytest.mark.parametrize("model", [keras.Sequential([PReLU()], name="unbuilt"), Subclassed()], ids=lambda m: m.name)
def test_model_that_is_not_built_is_refused(model):
    with pytest.raises(ValueError, match="is not built and has no slopes yet"):
        slope_table(model)
