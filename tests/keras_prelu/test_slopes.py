import keras
import numpy as np
import pytest
from keras import layers

from keras_prelu import PReLU
from keras_prelu.layer.slopes import exclude_slopes_from_weight_decay

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, weight_decay=0.5),
    "adamw": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.5),
    "loss-scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.1, weight_decay=0.5)),
    "loss-scale-twice": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, weight_decay=0.5))
    ),
}


class Composite(layers.Layer):
    """A layer made of layers."""

    def __init__(self):
        super().__init__(name="composite")
        self.dense = layers.Dense(4)
        self.prelu = PReLU()

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.prelu.build((*input_shape[:-1], 4))

    def call(self, inputs):
        return self.prelu(self.dense(inputs))


def network():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layers.PReLU(keras.initializers.Constant(0.25))], name="inner"
    )
    return keras.Sequential([keras.Input((3,)), layers.Dense(4, name="first"), PReLU(), inner, Composite()])


def changes(optimizer, model):
    """The paths of the variables that a step without gradient changes."""
    variables = model.trainable_variables
    before = [np.array(variable) for variable in variables]
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables], variables)
    return {
        variable.path
        for variable, value in zip(variables, before, strict=True)
        if not np.array_equal(np.array(variable), value)
    }


def paths(model, name):
    return {variable.path for variable in model.trainable_variables if variable.name == name}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slopes_stay_to_the_bit_while_kernels_decay(name):
    model, optimizer = network(), OPTIMIZERS[name]()
    exclude_slopes_from_weight_decay(optimizer, model)
    assert len(paths(model, "alpha")) == len(paths(model, "kernel")) == 3
    assert changes(optimizer, model) == paths(model, "kernel")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slopes_decay_without_it(name):
    model = network()
    assert changes(OPTIMIZERS[name](), model) == paths(model, "kernel") | paths(model, "alpha")


def test_earlier_exclusions_stay():
    model, optimizer = network(), keras.optimizers.SGD(0.1, weight_decay=0.5)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))  # biases too have something to lose
    first = model.get_layer("first").kernel
    optimizer.exclude_from_weight_decay(var_list=[first], var_names=["bias"])
    exclude_slopes_from_weight_decay(optimizer, model)
    assert changes(optimizer, model) == paths(model, "kernel") - {first.path}


def test_two_models_of_one_optimizer():
    models, optimizer = (network(), network()), keras.optimizers.SGD(0.1, weight_decay=0.5)
    for model in (*models, models[0]):
        exclude_slopes_from_weight_decay(optimizer, model)
    optimizer.build([variable for model in models for variable in model.trainable_variables])
    for model in models:
        assert changes(optimizer, model) == paths(model, "kernel")


def test_excludes_through_fit():
    model, optimizer = network(), keras.optimizers.SGD(0.1, weight_decay=0.5)
    exclude_slopes_from_weight_decay(optimizer, model)
    model.compile(optimizer, lambda targets, outputs: 0 * keras.ops.mean(outputs))
    model.fit(np.ones((2, 3)), np.ones((2, 4)), verbose=0)
    slopes = [variable for variable in model.trainable_variables if variable.name == "alpha"]
    assert all(np.array_equal(slope, np.full(slope.shape, 0.25)) for slope in slopes)


def test_built_optimizer_is_refused():
    model, optimizer = network(), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(weight_decay=0.5))
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"is built already .* before the optimizer takes its first step"):
        exclude_slopes_from_weight_decay(optimizer, model)


def test_model_that_is_not_built_is_refused():
    model = keras.Sequential([layers.Dense(2), PReLU()], name="unbuilt")
    with pytest.raises(ValueError, match="'unbuilt' is not built and has no slopes yet"):
        exclude_slopes_from_weight_decay(keras.optimizers.SGD(weight_decay=0.5), model)
