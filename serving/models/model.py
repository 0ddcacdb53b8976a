"""One loaded version of a model: named arrays in, named arrays out."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo as TensorInfoProto

from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument
from serving.models import session
from serving.models.example_features import find_features
from serving.wire import tensors
from serving.wire.binding import bind_inputs, bind_outputs
from serving.wire.hints import knowing, knowing_misfits
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

_PREDICT_METHODS = tuple(f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress"))


class Runner(Protocol):
    """Computes tensors: a session, an interpreter, or batches of requests before one of these."""

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], call: Call) -> list[np.ndarray]:
        """Computes the tensors of these names from arrays by the names of theirs, in the time that the call has left.

        A call that its client has cancelled is not run.
        """

    def close(self) -> None:
        """Frees the memory. Nobody may run the model any more."""


class Model:
    """The signatures of a version, and the runner that computes their tensors.

    With `checks_method_names` a signature answers only the method that it was exported for.
    """

    def __init__(self, runner: Runner, signatures: Mapping[str, Signature], checks_method_names: bool = False) -> None:
        self.runner = runner
        self.signatures = signatures
        self.checks_method_names = checks_method_names

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        output_names: Sequence[str] = (),
        call: Call | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes the outputs of these names, or all. Without a call the time is not limited."""
        signature = self._signature(signature_name or DEFAULT_SIGNATURE)
        with knowing(signature):
            feeds = bind_inputs(signature, inputs)
        aliases = bind_outputs(signature, output_names)
        fetches = [signature.outputs[alias].name for alias in aliases]
        with knowing_misfits(signature, inputs):
            outputs = self.runner.run(feeds, fetches, call or Call())
        return dict(zip(aliases, outputs, strict=True))

    def close(self) -> None:
        """Frees the memory. Nobody may run the model any more."""
        self.runner.close()

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        if self.checks_method_names and signature.method_name not in _PREDICT_METHODS:
            raise invalid_argument(
                f"Expected prediction signature method_name to be one of {{{', '.join(_PREDICT_METHODS)}}}. "
                f"Was: {signature.method_name}"
            )
        return signature


def load(directory: Path, tags: Collection[str] = ("serve",), session_config: ConfigProto | None = None) -> Model:
    """Loads a SavedModel directory, of TF1 or TF2."""
    config = ConfigProto()
    if session_config is not None:
        config.CopyFrom(session_config)
    # Exports remember the device they were made on; a server without it is no reason to refuse them.
    config.allow_soft_placement = True
    runner, meta_graph = session.load(directory, tags, config)
    try:
        definitions = meta_graph.signature_def
        names = [name for name in definitions if name != session.INIT_OP_KEY]
        return Model(runner, {name: make_signature(name, definitions[name], meta_graph.graph_def) for name in names})
    except BaseException:
        runner.close()
        raise


def make_signature(name: str, definition: SignatureDef, graph: GraphDef | None = None) -> Signature:
    """Reads a SignatureDef, and from its GraphDef the features of the tf.Examples that it parses."""
    fetched = [info.name for info in definition.outputs.values()]
    return Signature(
        name=name,
        method_name=definition.method_name,
        inputs={alias: _tensor_info(info) for alias, info in definition.inputs.items()},
        outputs={alias: _tensor_info(info) for alias, info in definition.outputs.items()},
        defaults={alias: tensors.from_proto(proto) for alias, proto in definition.defaults.items()},
        definition=definition,
        features={} if graph is None else find_features(graph, fetched),
    )


def _tensor_info(info: TensorInfoProto) -> TensorInfo:
    word = types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
    if info.tensor_shape.unknown_rank:
        return TensorInfo(info.name, word, None)
    sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return TensorInfo(info.name, word, sizes)
