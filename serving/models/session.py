"""SavedModels, of TF1 and TF2, in sessions: loaded and run by the C++ code that TensorFlow Serving calls, too."""

import ctypes
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from ctypes import c_void_p
from pathlib import Path

import numpy as np
from tensorflow.core.protobuf.config_pb2 import ConfigProto, RunOptions
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from serving.call import Call
from serving.errors import Code, ServingError
from serving.models import c_api
from serving.models.model import Model
from serving.models.signature_defs import make_signature

MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", "variables/*")
"""Patterns of the files in a version's directory that a session is loaded from."""

_VARIABLES = "variables/variables.index"
_INIT_OP = "__saved_model_init_op"  # the signature of TF2 that initializes a model, and answers no request
_DAMAGED_FILE = "Read less bytes than requested"  # all that the loader says of a file that is no message


class SessionRunner:
    """A TF_Session and its TF_Graph."""

    def __init__(self, session: int, graph: int) -> None:
        self._session = session
        self._graph = graph
        self._outputs: dict[str, c_api.Output] = {}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], call: Call) -> list[np.ndarray]:
        """Computes the tensors of these names from arrays by the names of theirs."""
        if call.is_cancelled():
            raise ServingError(Code.CANCELLED, "The client has cancelled the request")
        fed = [self._output(name, "FeedInputs: unable to find feed output") for name in feeds]
        fetched = [self._output(name, "FetchOutputs: unable to find") for name in fetches]
        inputs = [c_api.from_array(array) for array in feeds.values()]
        given = (c_void_p * len(inputs))(*(each.handle for each in inputs))
        computed = (c_void_p * len(fetched))()
        with c_api.checked() as status, _run_options(call) as options:
            c_api.TF_SessionRun(
                *(self._session, options),
                *((c_api.Output * len(fed))(*fed), given, len(fed)),
                *((c_api.Output * len(fetched))(*fetched), computed, len(fetched)),
                *(None, 0, None, status),
            )
        outputs = [c_api.Tensor(handle) for handle in computed if handle]
        return [c_api.to_array(each) for each in outputs]

    def close(self) -> None:
        """Frees the memory. Nobody may run the graph any more."""
        try:
            with c_api.checked() as status:
                c_api.TF_DeleteSession(self._session, status)  # discards it even where it reports an error
        finally:
            c_api.TF_DeleteGraph(self._graph)

    def _output(self, name: str, complaint: str) -> c_api.Output:
        if name not in self._outputs:
            operation, _, index = name.partition(":")
            found = c_api.TF_GraphOperationByName(self._graph, operation.encode())
            if found is None:
                raise ServingError(Code.NOT_FOUND, f"{complaint} {name}")
            self._outputs[name] = c_api.Output(found, int(index or 0))
        return self._outputs[name]


def load(directory: Path, tags: Collection[str] = ("serve",), config: ConfigProto | None = None) -> Model:
    """Loads a SavedModel directory: restores the variables, and runs the initializers.

    Raises ServingError if there is no such model, it has no graph with these tags, or the runtime can't load it.
    """
    runner, meta_graph = _load(directory, tags, config or ConfigProto(allow_soft_placement=True))
    try:
        definitions, graph = meta_graph.signature_def, meta_graph.graph_def
        names = [name for name in definitions if name != _INIT_OP]
        return Model(runner, {name: make_signature(name, definitions[name], graph) for name in names})
    except BaseException:
        runner.close()
        raise


def _load(directory: Path, tags: Collection[str], config: ConfigProto) -> tuple[SessionRunner, MetaGraphDef]:
    names = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
    graph, meta_graph = c_api.TF_NewGraph(), c_api.TF_NewBuffer()
    try:
        with _session_options(config) as options, c_api.checked() as status:
            session = c_api.TF_LoadSessionFromSavedModel(
                options, None, os.fsencode(directory), names, len(names), graph, meta_graph, status
            )
        content = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
    except BaseException as error:
        c_api.TF_DeleteGraph(graph)
        if isinstance(error, ServingError) and error.message == _DAMAGED_FILE:
            raise ServingError(Code.DATA_LOSS, f"Can't parse {directory}/saved_model.pb as binary proto") from error
        raise
    finally:
        c_api.TF_DeleteBuffer(meta_graph)
    runner, message = SessionRunner(session, graph), MetaGraphDef.FromString(content)
    if _has_variables(message) and not (directory / _VARIABLES).exists():
        # TensorFlow loads it without a word, and then each run fails.
        runner.close()
        raise ServingError(Code.NOT_FOUND, f"The graph has variables, but there is no file {directory / _VARIABLES}")
    return runner, message


def _has_variables(message: MetaGraphDef) -> bool:
    objects = message.object_graph_def.nodes  # of TF2, which writes a saver even if there is nothing to save
    return any(each.HasField("variable") for each in objects) if objects else bool(message.saver_def.restore_op_name)


@contextmanager
def _session_options(config: ConfigProto) -> Iterator[int]:
    options, serialized = c_api.TF_NewSessionOptions(), config.SerializeToString()
    try:
        with c_api.checked() as status:
            c_api.TF_SetConfig(options, serialized, len(serialized), status)
        yield options
    finally:
        c_api.TF_DeleteSessionOptions(options)


def _run_options(call: Call) -> AbstractContextManager[int | None]:
    seconds = call.remaining()
    if seconds is None:
        return nullcontext()
    # 0 would mean no limit, so a deadline that has passed gets the shortest one.
    return c_api.buffer_of(RunOptions(timeout_in_ms=max(1, round(seconds * 1000))))
