"""Reads the SignatureDefs of an export, and from its graph the features of the tf.Examples that a signature parses."""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf import meta_graph_pb2

from serving.wire.signatures import Feature, Signature, TensorInfo
from serving.wire.tensor_proto import declared_shape, read_tensor

_PARSERS = ("ParseExample", "ParseExampleV2", "ParseSingleExample")

Nodes = Mapping[str, NodeDef]


def make_signature(name: str, definition: meta_graph_pb2.SignatureDef, graph: GraphDef | None = None) -> Signature:
    """Reads a SignatureDef; without a graph its features remain unknown."""
    fetched = [info.name for info in definition.outputs.values()]
    return Signature(
        name=name,
        method_name=definition.method_name,
        inputs={alias: _tensor_info(info) for alias, info in definition.inputs.items()},
        outputs={alias: _tensor_info(info) for alias, info in definition.outputs.items()},
        defaults={alias: read_tensor(proto) for alias, proto in definition.defaults.items()},
        definition=definition,
        features={} if graph is None else find_features(graph, fetched),
    )


def find_features(graph: GraphDef, output_names: Iterable[str]) -> dict[str, Feature]:
    """The dense features, by name, that the operations before some outputs of a graph parse."""
    functions = {each.signature.name: each.node_def for each in graph.library.function}
    features: dict[str, Feature] = {}
    for nodes, parser in _parsers(_leading_to(graph.node, output_names), functions, set()):
        features |= _read_parser(nodes, parser)
    return features


def _tensor_info(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    return TensorInfo(info.name, _word(info.dtype), declared_shape(info.tensor_shape))


def _word(number: int) -> str:
    return str(types_pb2.DataType.Name(number)).removeprefix("DT_").lower()


def _leading_to(nodes: Iterable[NodeDef], names: Iterable[str]) -> Nodes:
    """The nodes of a graph that some of its tensors depend on."""
    by_name = {node.name: node for node in nodes}
    found: dict[str, NodeDef] = {}
    waiting = [_node_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in found:
            found[name] = by_name[name]
            waiting += map(_node_name, by_name[name].input)
    return found


def _parsers(
    nodes: Nodes, functions: Mapping[str, Iterable[NodeDef]], seen: set[str]
) -> Iterator[tuple[Nodes, NodeDef]]:
    for node in nodes.values():
        if node.op in _PARSERS:
            yield nodes, node
        for name in _called(node):
            if name in functions and name not in seen:
                seen.add(name)
                yield from _parsers({each.name: each for each in functions[name]}, functions, seen)


def _called(node: NodeDef) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (each.name for each in value.list.func)


def _read_parser(nodes: Nodes, parser: NodeDef) -> dict[str, Feature]:
    types, shapes = parser.attr["Tdense"].list.type, parser.attr["dense_shapes"].list.shape
    inputs = [name for name in parser.input if not name.startswith("^")]
    defaults = inputs[len(inputs) - len(types) :]
    features = {}
    for key, kind, shape, default in zip(_dense_keys(nodes, parser, inputs), types, shapes, defaults, strict=False):
        num_values = math.prod(max(1, dim.size) for dim in shape.dim)
        given = _constant(nodes, default)
        features[key] = Feature(_word(kind), num_values, is_required=given is not None and given.size == 0)
    return features


def _dense_keys(nodes: Nodes, parser: NodeDef, inputs: list[str]) -> list[str]:
    if parser.op == "ParseSingleExample":
        return [key.decode() for key in parser.attr["dense_keys"].list.s]
    if parser.op == "ParseExampleV2":
        keys = [inputs[3]]
    else:
        first = 2 + parser.attr["Nsparse"].i
        keys = inputs[first : first + parser.attr["Ndense"].i]
    arrays = [_constant(nodes, name) for name in keys]
    return [key.decode() for array in arrays if array is not None for key in array.reshape(-1).tolist()]


def _constant(nodes: Nodes, name: str) -> np.ndarray | None:
    node = nodes.get(_node_name(name))
    return read_tensor(node.attr["value"].tensor) if node is not None and node.op == "Const" else None


def _node_name(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]
