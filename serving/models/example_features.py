"""Which features the tf.Examples of a signature need: what the parsing operations of its graph ask for."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tensorflow.core.framework import types_pb2

from serving.wire import tensors
from serving.wire.signatures import Feature

_PARSERS = ("ParseExample", "ParseExampleV2", "ParseSingleExample")


def find_features(graph: Any, output_names: Iterable[str]) -> dict[str, Feature]:
    """The dense features that tensors of a GraphDef are computed from, by name."""
    functions = {each.signature.name: each.node_def for each in graph.library.function}
    features: dict[str, Feature] = {}
    for nodes, parser in _parsers(_leading_to(graph.node, output_names), functions, set()):
        features |= _read_parser(nodes, parser)
    return features


def _leading_to(nodes: Iterable[Any], names: Iterable[str]) -> dict[str, Any]:
    """The nodes of a graph that some of its tensors depend on."""
    by_name = {node.name: node for node in nodes}
    found: dict[str, Any] = {}
    waiting = [_node_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in found:
            found[name] = by_name[name]
            waiting += map(_node_name, by_name[name].input)
    return found


def _parsers(
    nodes: Mapping[str, Any], functions: Mapping[str, Any], seen: set[str]
) -> Iterator[tuple[Mapping[str, Any], Any]]:
    for node in nodes.values():
        if node.op in _PARSERS:
            yield nodes, node
        for name in _called(node):
            if name in functions and name not in seen:
                seen.add(name)
                yield from _parsers({each.name: each for each in functions[name]}, functions, seen)


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (each.name for each in value.list.func)


def _read_parser(nodes: Mapping[str, Any], parser: Any) -> dict[str, Feature]:
    types, shapes = parser.attr["Tdense"].list.type, parser.attr["dense_shapes"].list.shape
    inputs = [name for name in parser.input if not name.startswith("^")]
    defaults = inputs[len(inputs) - len(types) :]
    features = {}
    for key, kind, shape, default in zip(_dense_keys(nodes, parser, inputs), types, shapes, defaults, strict=False):
        word = types_pb2.DataType.Name(kind).removeprefix("DT_").lower()
        num_values = math.prod(max(1, dim.size) for dim in shape.dim)
        given = _constant(nodes, default)
        features[key] = Feature(word, num_values, is_required=given is not None and given.size == 0)
    return features


def _dense_keys(nodes: Mapping[str, Any], parser: Any, inputs: list[str]) -> list[str]:
    if parser.op == "ParseSingleExample":
        return [key.decode() for key in parser.attr["dense_keys"].list.s]
    if parser.op == "ParseExampleV2":
        keys = [inputs[3]]
    else:
        first = 2 + parser.attr["Nsparse"].i
        keys = inputs[first : first + parser.attr["Ndense"].i]
    arrays = [_constant(nodes, name) for name in keys]
    return [key.decode() for array in arrays if array is not None for key in array.reshape(-1).tolist()]


def _constant(nodes: Mapping[str, Any], name: str) -> Any:
    node = nodes.get(_node_name(name))
    return tensors.from_proto(node.attr["value"].tensor) if node is not None and node.op == "Const" else None


def _node_name(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]
