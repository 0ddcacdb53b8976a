"""TFLite models: interpreters instead of a session, and the signatures in such a file (tflite_session.cc)."""

import queue
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from flatbuffers import flexbuffers  # type: ignore[import-untyped]
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.lite.python import schema_py_generated as schema

from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument
from serving.models.model import Model
from serving.models.signature_defs import make_signature
from serving.wire.signatures import DEFAULT_SIGNATURE

MODEL_FILE = "model.tflite"
"""The file in a version's directory that `prefer_tflite_model` runs."""

_SIGNATURES = b"signature_defs_metadata"
_PREDICT_METHOD = "tensorflow/serving/predict"

Details = Mapping[str, Any]
"""An interpreter's description of a tensor."""


class InterpreterRunner:
    """Interpreters of one model, each of which runs one call at a time."""

    def __init__(self, path: Path, num_interpreters: int) -> None:
        self._free: queue.SimpleQueue[tf.lite.Interpreter] = queue.SimpleQueue()
        for _ in range(num_interpreters):
            interpreter = _make_interpreter(path)
            self._free.put(interpreter)
        self.inputs = {each["name"]: each for each in interpreter.get_input_details()}
        self.outputs = {each["name"]: each for each in interpreter.get_output_details()}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], call: Call) -> list[np.ndarray]:
        """Computes the tensors of these names from arrays by the names of theirs.

        The timeout of the call ends the wait for an interpreter; a run itself can't be ended.
        """
        indices = {_find(self.inputs, name, "input")["index"]: feeds[name] for name in feeds}
        wanted = [_find(self.outputs, name, "output")["index"] for name in fetches]
        try:
            interpreter = self._free.get(timeout=call.remaining())
        except queue.Empty:
            raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for an interpreter") from None
        try:
            if call.is_cancelled():
                raise ServingError(Code.CANCELLED, "The client has cancelled the request")
            _invoke(interpreter, indices)
            return [np.asarray(interpreter.get_tensor(index)) for index in wanted]
        finally:
            self._free.put(interpreter)

    def close(self) -> None:
        """Frees the memory. Nobody may run the model any more."""
        while not self._free.empty():
            self._free.get()


def load(directory: Path, num_interpreters: int = 1) -> Model:
    """Loads the TFLite model in a version's directory."""
    path = directory / MODEL_FILE
    try:
        runner = InterpreterRunner(path, num_interpreters)  # which checks the file
        definitions = _signature_definitions(path.read_bytes())
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        raise invalid_argument(f"Cannot build FlatBufferModel from {path}: {error}") from error
    if not definitions:
        definitions = {DEFAULT_SIGNATURE: _made_up_definition(runner)}
    return Model(runner, {name: make_signature(name, each) for name, each in definitions.items()})


def _make_interpreter(path: Path) -> tf.lite.Interpreter:
    with warnings.catch_warnings():
        # The class is to move to ai_edge_litert; so far TensorFlow ships it, too.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated", category=UserWarning)
        interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    return interpreter


def _invoke(interpreter: tf.lite.Interpreter, arrays: Mapping[int, np.ndarray]) -> None:
    try:
        current = {each["index"]: tuple(each["shape"]) for each in interpreter.get_input_details()}
        resized = {index: array.shape for index, array in arrays.items() if array.shape != current[index]}
        for index, shape in resized.items():
            interpreter.resize_tensor_input(index, shape)
        if resized:
            interpreter.allocate_tensors()
        for index, array in arrays.items():
            interpreter.set_tensor(index, array)
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise ServingError(Code.INTERNAL, f"Failed to run interpreter. {error}") from error


def _find(tensors: Mapping[str, Details], name: str, noun: str) -> Details:
    # Names in a SignatureDef end with ":0"; those in the model may or may not.
    for each in (name, name.partition(":")[0]):
        if each in tensors:
            return tensors[each]
    raise invalid_argument(f"Missing {noun} TFLite tensor: {name}")


def _signature_definitions(content: bytes) -> dict[str, SignatureDef]:
    """The SignatureDefs in the model's metadata: a flexbuffers map of serialized messages."""
    model = schema.Model.GetRootAsModel(content, 0)
    for number in range(model.MetadataLength()):
        metadata = model.Metadata(number)
        if metadata.Name() == _SIGNATURES:
            stored = flexbuffers.GetRoot(model.Buffers(metadata.Buffer()).DataAsNumpy().tobytes()).AsMap
            names, messages = [key.AsKey for key in stored.Keys], [value.AsStringBytes for value in stored.Values]
            return {name: SignatureDef.FromString(each) for name, each in zip(names, messages, strict=True)}
    return {}


def _made_up_definition(runner: InterpreterRunner) -> SignatureDef:
    definition = SignatureDef(method_name=_PREDICT_METHOD)
    for described, tensors in ((definition.inputs, runner.inputs), (definition.outputs, runner.outputs)):
        for name, details in tensors.items():
            described[name].name = name
            is_text = details["dtype"] is np.bytes_
            described[name].dtype = types_pb2.DT_STRING if is_text else tf.as_dtype(details["dtype"]).as_datatype_enum
            for size in details["shape_signature"]:
                described[name].tensor_shape.dim.add(size=size)
    return definition
