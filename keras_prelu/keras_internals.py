"""All that keras_prelu uses of Keras beyond its documented API; `tests/keras_prelu/test_keras_internals.py` tries it.

Keras promises nothing of these names. Where a new version changes one, its test fails and says what stops working.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.backend.common.variables import AutocastScope


def inner_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers that a layer or model holds, not those inside them: what `Model.layers` is, for layers too."""
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    return list(layer._flatten_layers(include_self=False, recursive=False))


def flatten_layers(model: keras.Layer) -> list[keras.Layer]:
    """Every layer inside a model or a composite layer, in order, each once; a container before what it holds.

    Args:
        model: Any Keras model or layer, subclassed ones included.

    Returns:
        The layers, without the model itself.

    Examples:
        >>> inner = keras.Sequential([keras.layers.Dense(2, name="inner_dense")], name="inner")
        >>> model = keras.Sequential([inner, keras.layers.ReLU(name="relu")])
        >>> [layer.name for layer in flatten_layers(model)]
        ['inner', 'inner_dense', 'relu']
    """

    def descend(container: keras.Layer) -> Iterator[keras.Layer]:
        for layer in inner_layers(container):
            yield layer
            yield from descend(layer)

    return list({id(layer): layer for layer in descend(model)}.values())


def function_of(layer: Any) -> Any:
    """The `keras.Function` behind a layer; None for a `Sequential` that is not built, and for all that is no graph."""
    if isinstance(layer, keras.Sequential):
        return layer._functional
    return layer if isinstance(layer, keras.Function) else None


@dataclass(frozen=True)
class Node:
    """One call that a `keras.Function` recorded.

    Attributes:
        operation: The layer, or the operation of `keras.ops`.
        inputs: The symbolic tensors that it took.
        outputs: The symbolic tensors that it gave.
        arguments: Its positional arguments, tensors included.
    """

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    arguments: tuple[Any, ...]


def recorded_calls(function: Any) -> Iterator[Node]:
    """The calls that a `keras.Function` recorded, in the order in which Keras runs them: the graph of a model."""
    by_depth = function._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from map(_node, by_depth[depth])


def replay(model: Any, inputs: Any, call: Callable[..., Any]) -> Any:
    """Calls the layers and operations of a model's graph again, in their order, each by `call(layer, *inputs, **rest)`.

    `keras.models.clone_model` does so too, but its outputs are the model's own, and depend on nothing but its inputs.
    """
    return function_of(model)._run_through_graph(inputs, operation_fn=lambda operation: operation, call_fn=call)


def call_that_made(tensor: Any) -> Node:
    """The call that gave a symbolic tensor; walking from it to its inputs leads from a model's output to its input."""
    operation, index, _ = tensor._keras_history
    return _node(operation._inbound_nodes[index])


def _node(node: Any) -> Node:
    return Node(node.operation, tuple(node.input_tensors), tuple(node.outputs), tuple(node.arguments.args))


def operation_name(operation: Any) -> str:
    """The name of an operation of `keras.ops` in a model's graph, as `"Add"` for `+`; empty for a layer.

    The classes of these operations are not public, but their names say which operation it is.
    """
    return "" if isinstance(operation, keras.Layer) else type(operation).__name__


def holds_plain_kernels(layer: Any) -> bool:
    """Whether a layer computes with its plain kernel: not quantized, and without the low-rank term of LoRA."""
    return not getattr(layer, "quantization_mode", None) and not getattr(layer, "lora_enabled", False)


def exclude_from_weight_decay(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
    """Excludes variables from an optimizer's weight decay, besides those excluded before.

    `Optimizer.exclude_from_weight_decay` forgets earlier exclusions, and only private attributes hold them.
    """
    excluded = set(getattr(optimizer, "_exclude_from_weight_decay", ()))
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    optimizer.exclude_from_weight_decay(list(variables), None if pattern is None else [pattern.pattern])
    optimizer._exclude_from_weight_decay.update(excluded)


class AxesAwareInitializer(keras.initializers.VarianceScaling):
    """The base of initializers that need a kernel's axes: `EinsumDense` sets them on a VarianceScaling only.

    Without a seed it draws anew at each call; a plain VarianceScaling fixes a seed when it is made, and so gives two
    layers of one shape the same weights.
    """

    def __init__(self, *, seed: Any = None, **keywords: Any) -> None:
        super().__init__(seed=seed, **keywords)
        if seed is None:
            self.seed = None


@contextlib.contextmanager
def replaced(layer: keras.Layer, attribute: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within it, a layer has another `call` or `activation`: Keras looks both up on the layer whenever it runs.

    Setting the attribute would make Keras and PyTorch track a function that is a layer, or refuse it; so the function
    stands in the instance's own dictionary meanwhile.
    """
    own = vars(layer)
    held = {attribute: own[attribute]} if attribute in own else {}
    own[attribute] = function
    try:
        yield
    finally:
        del own[attribute]
        own.update(held)


def assign_uncast(variable: keras.Variable, value: Any) -> None:
    """Assigns a variable within the call of a layer of half precision, too.

    There, `Variable.assign` under PyTorch writes into a copy of half precision, which is then dropped.
    """
    with AutocastScope(None):
        variable.assign(value)
