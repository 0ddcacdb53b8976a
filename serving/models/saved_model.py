"""Reads a SavedModel directory, TF1's or TF2's, into a session, as TensorFlow's C++ loader does."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import message, text_format
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving.errors import Code, ServingError

INIT_OP_KEY = "__saved_model_init_op"  # TF2 writes it as a signature, TF1 as one of the collections below
_INIT_OP_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")


def load_into(session: Any, directory: Path, tags: Collection[str]) -> Any:
    """Imports the graph, restores its variables and runs its initializers. Returns the MetaGraphDef."""
    meta_graph = _meta_graph(directory, tags)
    _relax_placeholders(meta_graph.graph_def)
    with session.graph.as_default():
        stripped = meta_graph.meta_info_def.stripped_op_list
        tf.graph_util.import_graph_def(meta_graph.graph_def, name="", producer_op_list=stripped)
    assets = _asset_feeds(meta_graph, directory)
    _restore(session, meta_graph.saver_def, directory, assets)
    for operation in _init_operations(meta_graph):
        session.run(session.graph.get_operation_by_name(operation), feed_dict=assets)
    return meta_graph


def _meta_graph(directory: Path, tags: Collection[str]) -> Any:
    for meta_graph in _read(directory).meta_graphs:
        if set(meta_graph.meta_info_def.tags) == set(tags):
            return meta_graph
    raise ServingError(  # cc/saved_model/reader.cc
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tags))} }}. "
        "To inspect available tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`",
    )


def _read(directory: Path) -> Any:
    saved_model = saved_model_pb2.SavedModel()
    binary, text = directory / "saved_model.pb", directory / "saved_model.pbtxt"
    try:
        if binary.is_file():
            saved_model.ParseFromString(binary.read_bytes())
        elif text.is_file():
            text_format.Parse(text.read_text(), saved_model)
        else:
            raise ServingError(  # cc/saved_model/reader.cc
                Code.NOT_FOUND,
                "Could not find SavedModel .pb or .pbtxt at supplied export directory path: "
                f"{directory}. Check that the directory exists and that you have the right permissions "
                "for accessing it.",
            )
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ServingError(Code.DATA_LOSS, f"Can't parse {directory}/saved_model.pb as binary proto") from error
    return saved_model


def _relax_placeholders(graph_def: Any) -> None:
    # Session.run refuses arrays that do not fit a placeholder's declared shape; TensorFlow Serving does not
    # look at it and leaves the judgement to the operations.
    for node in graph_def.node:
        if node.op == "Placeholder":
            node.attr["shape"].shape.Clear()
            node.attr["shape"].shape.unknown_rank = True
            node.attr.pop("_output_shapes", None)


def _asset_feeds(meta_graph: Any, directory: Path) -> dict[str, str]:
    assets = list(meta_graph.asset_file_def)
    if not assets:
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            assets.append(asset)
    return {asset.tensor_info.name: str(directory / "assets" / asset.filename) for asset in assets}


def _restore(session: Any, saver: Any, directory: Path, assets: dict[str, str]) -> None:
    prefix = directory / "variables" / "variables"
    if saver.restore_op_name and prefix.with_suffix(".index").is_file():
        operation = session.graph.get_operation_by_name(saver.restore_op_name)
        session.run(operation, feed_dict={saver.filename_tensor_name: str(prefix), **assets})


def _init_operations(meta_graph: Any) -> list[str]:
    if INIT_OP_KEY in meta_graph.signature_def:
        outputs = meta_graph.signature_def[INIT_OP_KEY].outputs
        return [outputs[INIT_OP_KEY].name.removesuffix(":0")]
    for key in _INIT_OP_COLLECTIONS:
        if key in meta_graph.collection_def:
            return list(meta_graph.collection_def[key].node_list.value)
    return []
