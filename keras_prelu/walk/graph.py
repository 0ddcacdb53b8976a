"""The graph of a functional or Sequential model: its calls in order, with nested models opened."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from keras_prelu.keras_internals import flatten_layers, function_of, recorded_calls

__all__ = ["Call", "Graph", "flatten_layers", "layer_paths", "trace"]


@dataclass(frozen=True)
class Call:
    """One call of a layer or of an operation of `keras.ops`.

    Attributes:
        operation: The layer or operation, taken out of `keras.layers.TimeDistributed`.
        path: The names of the nested models around it and its own, joined by slashes.
        inputs: The tensors it takes, by number.
        outputs: The tensors it gives, by number.
        input_shapes: The shapes of the tensors it takes.
        output_shape: The shape of the first tensor it gives.
        constants: Its positional arguments that are not such tensors.
        constant_first: Whether the first argument is one of these.
    """

    operation: keras.Operation
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[tuple[int | None, ...], ...]
    output_shape: tuple[int | None, ...]
    constants: tuple[Any, ...] = field(default=(), compare=False)  # arrays among them, which have no hash
    constant_first: bool = False


@dataclass(frozen=True)
class Graph:
    """The calls of a model in an order in which they can run; tensors are numbers.

    Attributes:
        calls: The calls, those of nested models in the nested model's place.
        inputs: The model's input tensors.
        outputs: The model's output tensors.
    """

    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def trace(model: keras.Model) -> Graph:
    """Reads a model's graph, and those of the models nested in it.

    Args:
        model: A built functional or Sequential model.

    Returns:
        The graph. A layer that is called several times has several calls.

    Raises:
        ValueError: A model that is not built, or a subclassed one, whose calls only its own code knows.

    Examples:
        >>> inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")], name="inner")
        >>> model = keras.Sequential([keras.Input((3,)), inner, keras.layers.ReLU(name="relu")])
        >>> [call.path for call in trace(model).calls]
        ['inner/dense', 'relu']
    """
    function = function_of(model)
    if function is None:
        raise ValueError(_no_graph(model))
    tensors = itertools.count()
    inputs = tuple(next(tensors) for _ in function.inputs)
    calls: list[Call] = []
    outputs = _trace(function, inputs, "", tensors, calls)
    return Graph(tuple(calls), inputs, outputs)


def layer_paths(model: keras.Model) -> dict[int, str]:
    """Names each layer that a model's graph calls by its path, by the layer's id.

    Args:
        model: Any model.

    Returns:
        The names of the nested models around a layer and its own, joined by slashes, where the layer is called first.
        Empty for a model without a graph.

    Examples:
        >>> dense = keras.layers.Dense(2, name="dense")
        >>> model = keras.Sequential([keras.Input((3,)), keras.Sequential([dense], name="inner")])
        >>> layer_paths(model)[id(dense)]
        'inner/dense'
    """
    try:
        calls = trace(model).calls
    except ValueError:
        return {}
    return {id(call.operation): call.path for call in reversed(calls)}


def _no_graph(model: keras.Model) -> str:
    if isinstance(model, keras.Sequential):
        return f"Model {model.name!r} is not built: give it a keras.Input, or call build with an input shape."
    return (
        f"Model {model.name!r} is a {type(model).__name__}, which has no graph to walk: a functional or Sequential "
        "model is needed."
    )


def _trace(
    function: Any, inputs: Sequence[int], prefix: str, tensors: Iterator[int], calls: list[Call]
) -> tuple[int, ...]:
    numbers = {id(tensor): number for tensor, number in zip(function.inputs, inputs, strict=True)}
    for node in recorded_calls(function):
        if all(id(tensor) in numbers for tensor in node.outputs):
            continue  # an input of this model, though maybe an output of another one
        operation, path = node.operation, prefix + node.operation.name
        while isinstance(operation, keras.layers.TimeDistributed):
            operation = operation.layer
        taken = tuple(numbers[id(tensor)] for tensor in node.inputs)
        inner = function_of(operation)
        if inner is None:
            given = tuple(next(tensors) for _ in node.outputs)
            shapes = tuple(tensor.shape for tensor in node.inputs)
            symbolic = [_holds_tensor(each) for each in node.arguments]
            constants = tuple(each for each, held in zip(node.arguments, symbolic, strict=True) if not held)
            first = bool(symbolic) and not symbolic[0]
            calls.append(Call(operation, path, taken, given, shapes, node.outputs[0].shape, constants, first))
        else:
            given = _trace(inner, taken, path + "/", tensors, calls)
        numbers.update(zip(map(id, node.outputs), given, strict=True))
    return tuple(numbers[id(tensor)] for tensor in function.outputs)


def _holds_tensor(argument: Any) -> bool:
    return any(map(keras.utils.is_keras_tensor, keras.tree.flatten(argument)))


def without_repeats(graph: Graph) -> Graph:
    """The graph with each weightless call that repeats another one, of the same inputs, taken for that one.

    Two poolings of one tensor are equal, and not merely alike, which matters where they are added up.

    Args:
        graph: A model's graph.
    """
    kept: list[Call] = []
    seen: dict[Any, Call] = {}
    equal: dict[int, int] = {}
    for call in graph.calls:
        inputs = tuple(equal.get(tensor, tensor) for tensor in call.inputs)
        call = replace(call, inputs=inputs)
        key = (type(call.operation), inputs, str(_settings(call.operation)), str(call.constants), call.constant_first)
        random = any(isinstance(value, keras.random.SeedGenerator) for value in vars(call.operation).values())
        first = call if random or getattr(call.operation, "weights", None) else seen.setdefault(key, call)
        equal.update(zip(call.outputs, first.outputs, strict=True))
        if first is call:
            kept.append(call)
    return Graph(tuple(kept), graph.inputs, tuple(equal.get(tensor, tensor) for tensor in graph.outputs))


def _settings(operation: keras.Operation) -> Any:
    try:
        return {name: value for name, value in operation.get_config().items() if name != "name"}
    except Exception:  # an operation without readable settings equals no other
        return id(operation)
