"""The formats that a classifier is exported in beside the SavedModel: LiteRT and ONNX."""

import pathlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_prelu.onnx import export_onnx
from training.classifier import Classifier
from training.config import nearest
from training.environment import native_messages_held
from training.errors import InputError, check_packages
from training.export.signatures import save_model, signature

OPSET = 18  # of December 2022: the newest that tf2onnx writes


class Format(NamedTuple):
    """A file format.

    Attributes:
        file: The file's name.
        write: Writes a classifier to a path, with images `[height, width, channels]` to calibrate by.
        run: Gives the file's scores `[N, classes]` for images `[N, height, width, channels]` in 0..255.
        facts: What a user of the file needs to know, for `export.json`.
        extra: The extra of this package that brings the packages below.
        packages: What it needs beside TensorFlow.
        calibrated: Whether it computes in integers, with ranges taken from images of the training split: its scores
            differ from the Keras model's.
    """

    file: str
    write: Callable[[Classifier, pathlib.Path, Sequence[np.ndarray]], None]
    run: Callable[[pathlib.Path, np.ndarray], np.ndarray]
    facts: dict[str, Any]
    extra: str
    packages: tuple[str, ...]
    calibrated: bool = False


def check_formats(names: Sequence[str]) -> None:
    """Checks that these formats can be written here.

    Raises:
        InputError: There is no such format, or a package that it needs is not installed.
    """
    for name in names:
        if name not in FORMATS:
            raise InputError(f"there is no format {name!r}{nearest(name, FORMATS)}; there are {', '.join(FORMATS)}")
        check_packages(name, FORMATS[name].packages, FORMATS[name].extra)


def write_litert(classifier: Classifier, path: pathlib.Path, _: Sequence[np.ndarray]) -> None:
    """Writes a file for one image, with one PRELU for each PReLU layer."""
    path.write_bytes(_converted(classifier, path.parent))


def write_int8(classifier: Classifier, path: pathlib.Path, calibration: Sequence[np.ndarray]) -> None:
    """Writes a file for one image whose weights and activations are integers, in a quarter of the memory."""

    def quantize(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8

    path.write_bytes(_converted(classifier, path.parent, quantize))


def run_litert(path: pathlib.Path, images: np.ndarray) -> np.ndarray:
    """The scores `[N, classes]` that a file gives to images `[N, height, width, channels]` in 0..255."""
    from ai_edge_litert.interpreter import Interpreter

    with native_messages_held():
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    scores = []
    for image in images:
        interpreter.set_tensor(inputs["index"], _quantized(image, inputs)[np.newaxis])
        interpreter.invoke()
        scores.append(_dequantized(interpreter.get_tensor(outputs["index"])[0], outputs))
    return np.stack(scores)


def _converted(classifier: Classifier, scratch: pathlib.Path, prepare: Callable[[Any], None] = lambda _: None) -> bytes:
    spec = tf.TensorSpec([1, *classifier.image_shape], tf.float32)
    scores = signature(lambda images: {"scores": classifier.scores(images)}, "images", spec)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        save_model(pathlib.Path(folder), {"serving_default": scores}, [classifier.network])
        with native_messages_held():
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            prepare(converter)
            content: bytes = converter.convert()
    return content


def _quantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    if not scale:  # a float file
        return values
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(values / scale + zero_point), limits.min, limits.max).astype(details["dtype"])


def _dequantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale) if scale else values


def write_onnx(classifier: Classifier, path: pathlib.Path, _: Sequence[np.ndarray]) -> None:
    """Writes a file for batches of any size in float32, with one PRelu for each PReLU layer."""
    network = classifier.network
    scores = keras.layers.Softmax(dtype="float32", name="scores")(network.outputs[0])
    with native_messages_held(), warnings.catch_warnings():
        # Keras 3.15 looks for a name that NumPy 2 dropped when it prepares tf2onnx
        warnings.filterwarnings("ignore", message="In the future `np.object`", category=FutureWarning)
        export_onnx(keras.Model(network.inputs[0], scores), path, opset_version=OPSET)
    _name_ends(path)


def run_onnx(path: pathlib.Path, images: np.ndarray) -> np.ndarray:
    """The scores `[N, classes]` that a file gives to images `[N, height, width, channels]` in 0..255."""
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores: np.ndarray
    (scores,) = session.run(["scores"], {"images": images})
    return scores


def _name_ends(path: pathlib.Path) -> None:
    import onnx

    model = onnx.load(path)
    graph = model.graph
    names = {graph.input[0].name: "images", graph.output[0].name: "scores"}
    for end in (*graph.input, *graph.output):
        end.name = names[end.name]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    onnx.save(model, path)


_PIXELS = "height, width, channels] in 0..255"
_FLOAT = {"input": f"images, float32 [1, {_PIXELS}", "output": "scores, float32 [1, classes]"}
_INT8 = {
    "input": f"images, uint8 [1, {_PIXELS}: pixel / scale + zero_point of its quantization",
    "output": "scores, uint8 [1, classes]: 256ths",
}
_BATCH = {"input": f"images, float32 [N, {_PIXELS}", "output": "scores, float32 [N, classes]", "opset": OPSET}
_ONNX_PACKAGES = ("onnx", "onnxscript", "tf2onnx", "onnxruntime")

FORMATS = {
    "litert": Format("model.tflite", write_litert, run_litert, _FLOAT, "litert", ("ai_edge_litert",)),
    "litert_int8": Format("model_int8.tflite", write_int8, run_litert, _INT8, "litert", ("ai_edge_litert",), True),
    "onnx": Format("model.onnx", write_onnx, run_onnx, _BATCH, "onnx", _ONNX_PACKAGES),
}
