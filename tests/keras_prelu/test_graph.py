import itertools

import keras
import pytest
from keras import layers

from keras_prelu.walk.graph import flatten_layers, trace


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2, name="dense")

    def call(self, inputs):
        return self.dense(inputs)


def block(name):
    return keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense"), layers.ReLU(name="relu")], name=name)


def test_flatten_layers_opens_models_and_composite_layers():
    inputs = keras.Input((5, 8), name="inputs")
    attended = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    outputs = layers.TimeDistributed(layers.Dense(3, name="dense"), name="each")(attended)
    found = flatten_layers(keras.Model(inputs, outputs))
    named = [layer.name for layer in found if not isinstance(layer, layers.Softmax | layers.Dropout)]
    assert named == ["inputs", "attention", "query", "key", "value", "attention_output", "each", "dense"]
    assert len(found) == len(named) + 2


def test_flatten_layers_names_a_shared_layer_once():
    inputs = keras.Input((4,), name="inputs")
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, layers.Add(name="add")([shared(inputs), shared(shared(inputs))]))
    assert sorted(layer.name for layer in flatten_layers(model)) == ["add", "inputs", "shared"]


def test_flatten_layers_opens_subclassed_models():
    assert [layer.name for layer in flatten_layers(Subclassed())] == ["dense"]


def test_trace_opens_nested_models_in_their_place():
    inputs = keras.Input((4,))
    outer = keras.Sequential([keras.Input((4,)), block("first"), layers.Dropout(0.5, name="dropout")], name="outer")
    outputs = layers.Dense(2, name="logits")(block("second")(outer(inputs)))
    graph = trace(keras.Model(inputs, outputs))
    assert [call.path for call in graph.calls] == [
        "outer/first/dense",
        "outer/first/relu",
        "outer/dropout",
        "second/dense",
        "second/relu",
        "logits",
    ]
    chain = [(call.inputs, call.outputs) for call in graph.calls]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(chain))
    assert (graph.calls[0].inputs, graph.calls[-1].outputs) == (graph.inputs, graph.outputs)


def test_trace_gives_every_call_of_a_shared_model():
    inputs = keras.Input((4,))
    shared = block("shared")
    graph = trace(keras.Model(inputs, shared(shared(inputs))))
    assert [call.path for call in graph.calls] == ["shared/dense", "shared/relu"] * 2
    assert graph.calls[1].outputs == graph.calls[2].inputs


def test_trace_joins_the_branches_of_a_sum_and_a_concatenation():
    inputs = keras.Input((4,))
    branch = layers.Dense(4, name="branch")(inputs)
    total = layers.Add(name="sum")([inputs, branch]) + branch  # an operation, not a layer
    graph = trace(keras.Model(inputs, layers.Concatenate(name="both")([total, branch])))
    calls = {call.path: call for call in graph.calls}
    (given,) = calls["branch"].outputs
    assert calls["sum"].inputs == (*graph.inputs, given)
    assert calls["both"].inputs[1] == given
    assert calls["both"].input_shapes == ((None, 4), (None, 4))
    assert len(calls) == 4


def test_trace_begins_at_the_inputs_of_a_model_cut_out_of_another():
    inputs = keras.Input((4,))
    middle = layers.Dense(4, name="outside")(inputs)
    graph = trace(keras.Model(middle, layers.Dense(4, name="inside")(middle)))
    assert [call.path for call in graph.calls] == ["inside"]


def test_trace_looks_into_time_distributed():
    model = keras.Sequential([keras.Input((5, 8)), layers.TimeDistributed(layers.Dense(3, name="dense"), name="each")])
    (call,) = trace(model).calls
    assert (call.path, call.operation.name) == ("each", "dense")


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="'unbuilt' is not built"):
        trace(keras.Sequential([layers.Dense(2)], name="unbuilt"))
    with pytest.raises(ValueError, match="is a Subclassed, which has no graph"):
        trace(Subclassed())
