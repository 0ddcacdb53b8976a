"""Each name that Keras promises nothing of, on the installed Keras: a failure says what stops working."""

import importlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_prelu import keras_internals


def branched():
    """A sum of a dense layer and its input."""
    inputs = keras.Input((4,), name="inputs")
    dense = layers.Dense(4, name="dense")(inputs)
    return keras.Model(inputs, ops.add(dense, inputs))


def flatten_layers_of_a_layer():
    attention = layers.MultiHeadAttention(2, 4)
    attention.build((None, 5, 8), (None, 5, 8))
    return {"query", "key", "value", "attention_output"} <= {
        layer.name for layer in keras_internals.inner_layers(attention)
    }


def sequential_functional():
    unbuilt, built = keras.Sequential([layers.Dense(2)]), keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    function = keras_internals.function_of(built)
    return keras_internals.function_of(unbuilt) is None and isinstance(function, keras.Function)


def nodes_by_depth():
    model = branched()
    names = [call.operation.name for call in keras_internals.recorded_calls(model)]
    return names[:2] == ["inputs", "dense"] and len(names) == 3


def node_fields():
    model = branched()
    *_, total = keras_internals.recorded_calls(model)
    same = [a is b for a, b in zip(total.arguments, total.inputs, strict=True)]
    return same == [True, True] and total.inputs[1] is model.inputs[0] and total.outputs[0] is model.outputs[0]


def run_through_graph():
    model, extra = branched(), keras.Input((4,))

    def call(operation, *inputs, **arguments):
        return operation(*inputs, **arguments) + extra

    x = keras.Input((4,))
    twice = keras.Model([x, extra], keras_internals.replay(model, x, call))
    ones = np.ones((1, 4), "float32")
    dense = model.get_layer("dense")(ones)
    return np.allclose(twice([ones, 10 * ones]), np.asarray(dense) + 1 + 20)


def keras_history():
    model = branched()
    total = keras_internals.call_that_made(model.outputs[0])
    dense = keras_internals.call_that_made(total.inputs[0])
    return dense.operation is model.get_layer("dense") and dense.inputs == tuple(model.inputs)


def operation_class_names():
    x = keras.KerasTensor((2, 3, 4))
    made = {
        "Add": x + x,
        "Subtract": x - x,
        "Multiply": x * x,
        "Divide": ops.divide(x, 2.0),
        "TrueDivide": x / 2.0,
        "Negative": -x,
        "Concatenate": ops.concatenate([x, x]),
        "Reshape": ops.reshape(x, (2, 12)),
        "Transpose": ops.transpose(x),
        "Squeeze": ops.squeeze(keras.KerasTensor((1, 3)), 0),
        "ExpandDims": ops.expand_dims(x, 0),
        "Flip": ops.flip(x),
        "Cast": ops.cast(x, "float16"),
        "GetItem": x[0],
        "Split": ops.split(x, 2, axis=-1)[0],
        "Pad": ops.pad(x, 1),
        "Mean": ops.mean(x, axis=1),
        "Max": ops.max(x, axis=1),
        "AveragePool": ops.average_pool(keras.KerasTensor((1, 4, 4, 2)), 2),
        "MaxPool": ops.max_pool(keras.KerasTensor((1, 4, 4, 2)), 2),
        "Relu": ops.relu(x),
        "Relu6": ops.relu6(x),
        "LeakyRelu": ops.leaky_relu(x),
    }
    found = {
        name: keras_internals.operation_name(keras_internals.call_that_made(tensor).operation)
        for name, tensor in made.items()
    }
    return found == {name: name for name in made} and keras_internals.operation_name(layers.Add()) == ""


def layer_names_of_applications():
    modules = [
        importlib.import_module(f"keras.src.applications.{name}") for name in ("convnext", "inception_resnet_v2")
    ]
    classes = {name for module in modules for name in vars(module)}
    return {"LayerScale", "StochasticDepth", "CustomScaleLayer"} <= classes


def quantization_mode():
    layer = layers.Dense(4)
    layer.build((None, 4))
    plain = keras_internals.holds_plain_kernels(layer)
    layer.quantize("int8")
    return plain and not keras_internals.holds_plain_kernels(layer)


def lora_enabled():
    layer = layers.Dense(4)
    layer.build((None, 4))
    layer.enable_lora(2)
    return not keras_internals.holds_plain_kernels(layer)


def exclude_from_weight_decay():
    variables = [keras.Variable([1.0], name=name) for name in ("kernel", "bias", "alpha")]
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    keras_internals.exclude_from_weight_decay(optimizer, variables[2:])
    optimizer.apply([ops.zeros(1)] * 3, variables)
    return [ops.convert_to_numpy(variable).item() for variable in variables] == [pytest.approx(0.95), 1.0, 1.0]


def einsum_sets_axes():
    axes = []

    class Axes(keras_internals.AxesAwareInitializer):
        def __call__(self, shape, dtype=None):
            axes.append((list(self.input_axes), list(self.output_axes)))
            return super().__call__(shape, dtype)

    layers.EinsumDense("abc,cde->abde", (None, 4, 16), kernel_initializer=Axes()).build((None, 10, 512))
    return axes == [([0], [1, 2])]


def variance_scaling_seed():
    initializer = keras_internals.AxesAwareInitializer()
    return not np.array_equal(initializer((3, 4)), initializer((3, 4)))


def runs_replaced(attribute, replacement, expected):
    """Whether a Dense layer runs a function in place of an attribute within `replaced`, and only there."""
    layer, x = layers.Dense(2, "relu"), np.array([[1.0, -2.0, 3.0]], "float32")
    layer.build(x.shape)
    linear = x @ ops.convert_to_numpy(layer.kernel)
    with keras_internals.replaced(layer, attribute, replacement):
        inside = ops.convert_to_numpy(layer(x))
    after = ops.convert_to_numpy(layer(x))
    return np.allclose(inside, expected(linear), atol=1e-6) and np.allclose(after, np.maximum(linear, 0), atol=1e-6)


def call_is_looked_up_on_the_layer():
    return runs_replaced("call", lambda inputs: inputs[:, :2] + 7, lambda linear: [[8, 5]])


def activation_is_looked_up_on_the_layer():
    return runs_replaced("activation", lambda values: values - 1, lambda linear: linear - 1)


def autocast_scope():
    layer, x = layers.Dense(2, dtype="mixed_float16"), np.ones((1, 3), "float32")
    layer.build(x.shape)
    value = np.full((3, 2), 1 + 2**-20, "float32")  # float16 would round it

    def call(inputs):
        keras_internals.assign_uncast(layer.kernel, value)
        return inputs

    with keras_internals.replaced(layer, "call", call):
        layer(x)
    return np.array_equal(ops.convert_to_numpy(layer.kernel), value)


BREAKS = {
    "_flatten_layers": (flatten_layers_of_a_layer, "kernels and slopes inside attention and other composite layers"),
    "Sequential._functional": (sequential_functional, "trace, and so initialize and predict_gains, of Sequential"),
    "_run_through_graph": (run_through_graph, "training_network, and so BatchNormalization on several devices"),
    "_nodes_by_depth": (nodes_by_depth, "trace, and so initialize, predict_gains and multiply_adds"),
    "Node.operation, arguments, input_tensors, outputs": (node_fields, "trace: the tensors between calls"),
    "_keras_history, _inbound_nodes": (keras_history, "fully_convolutional: the walk back from the output"),
    "names of keras.ops classes": (operation_class_names, "initialize and predict_gains of models with keras.ops"),
    "names of layers in keras.applications": (
        layer_names_of_applications,
        "initialize and predict_gains of ConvNeXt and InceptionResNet",
    ),
    "quantization_mode": (quantization_mode, "fans: quantized kernels would be drawn anew"),
    "lora_enabled": (lora_enabled, "fans: kernels with LoRA would be drawn anew"),
    "_exclude_from_weight_decay, _pattern": (exclude_from_weight_decay, "earlier exclusions from weight decay"),
    "EinsumDense and VarianceScaling": (einsum_sets_axes, "HeNormal in EinsumDense and attention"),
    "VarianceScaling.seed": (variance_scaling_seed, "unseeded HeNormal: two layers would start alike"),
    "Layer.call": (call_is_looked_up_on_the_layer, "measure_gains and calibrate: they see no layer"),
    "AutocastScope": (autocast_scope, "calibrate of models of half precision"),
    "Layer.activation": (activation_is_looked_up_on_the_layer, "measure_gains and calibrate: no pre-activations"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_keras_still_has(name):
    works, broken = BREAKS[name]
    message = f"Keras {keras.__version__} has changed {name}; what breaks: {broken}."
    try:
        assert works(), message
    except (AttributeError, TypeError, ValueError) as error:
        raise AssertionError(message) from error
