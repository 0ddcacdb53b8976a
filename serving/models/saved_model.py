"""Loads a SavedModel directory, TF1's or TF2's, by TensorFlow's own loader, which TensorFlow Serving calls too."""

import ctypes
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2

from serving.errors import Code, ServingError
from serving.models import c_api
from serving.models.session import SessionRunner

INIT_OP_KEY = "__saved_model_init_op"
"""The signature of TF2 that initializes a model, and answers no request."""

_DAMAGED_FILE = "Read less bytes than requested"  # all that the loader says of a file that is no message


def load(directory: Path, tags: Collection[str], config: Any) -> tuple[SessionRunner, Any]:
    """A session with the variables restored and the initializers run, and its MetaGraphDef.

    Raises:
        ServingError: There is no such model, it has no graph with these tags, or the runtime can't load it.
    """
    try:
        return _load(directory, tags, config)
    except ServingError as error:
        if error.message != _DAMAGED_FILE:
            raise
        raise ServingError(Code.DATA_LOSS, f"Can't parse {directory}/saved_model.pb as binary proto") from error


def _load(directory: Path, tags: Collection[str], config: Any) -> tuple[SessionRunner, Any]:
    names = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
    graph, meta_graph = c_api.TF_NewGraph(), c_api.TF_NewBuffer()
    try:
        with _session_options(config) as options, c_api.checked() as status:
            path = os.fsencode(directory)
            session = c_api.TF_LoadSessionFromSavedModel(
                options, None, path, names, len(names), graph, meta_graph, status
            )
        content = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
    except BaseException:
        c_api.TF_DeleteGraph(graph)
        raise
    finally:
        c_api.TF_DeleteBuffer(meta_graph)
    return SessionRunner(session, graph), meta_graph_pb2.MetaGraphDef.FromString(content)


@contextmanager
def _session_options(config: Any) -> Iterator[Any]:
    options, serialized = c_api.TF_NewSessionOptions(), config.SerializeToString()
    try:
        with c_api.checked() as status:
            c_api.TF_SetConfig(options, serialized, len(serialized), status)
        yield options
    finally:
        c_api.TF_DeleteSessionOptions(options)
