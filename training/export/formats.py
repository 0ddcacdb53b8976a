"""The formats that a classifier is exported in beside the SavedModel: LiteRT and ONNX."""

import dataclasses
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_prelu.onnx import export_onnx
from training.classifier import Classifier
from training.config import nearest
from training.environment import native_messages_held
from training.errors import InputError, check_packages
from training.export.signatures import save_model, signature


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        file: Its name.
        write: Writes it: of a classifier, to a path, with images to calibrate by.
        run: From the path and images `[N, height, width, channels]` in 0..255 to scores `[N, classes]`.
        calibrated: Whether it is in integers, to ranges taken from images of the training split: its scores cannot be
            the Keras model's then.
        facts: What a person must know to use it.
        packages: What it needs beside TensorFlow.
        extra: The extra of this package that brings them.
    """

    file: str
    write: Callable[[Classifier, pathlib.Path, Sequence[np.ndarray]], None]
    run: Callable[[pathlib.Path, np.ndarray], np.ndarray]
    calibrated: bool
    facts: dict[str, Any]
    packages: tuple[str, ...] = ()
    extra: str = ""


def write_litert(classifier: Classifier, path: pathlib.Path) -> None:
    """Writes a file of float32 operations, one PRELU for each PReLU layer.

    It takes one image, `images` float32 `[1, height, width, channels]` in 0..255, and gives `scores` float32
    `[1, classes]`.
    """
    path.write_bytes(_convert(classifier, path.parent))


def write_litert_int8(classifier: Classifier, path: pathlib.Path, calibration: Sequence[np.ndarray]) -> None:
    """Writes a file of int8 operations, with weights and activations in a quarter of the memory.

    Its `images` are uint8 `[1, height, width, channels]`, as `pixel / scale + zero_point` with the input's own scale
    and zero point, which are nearly 1 and 0; its `scores` uint8, in 256ths.

    Args:
        classifier: What to write.
        path: The file.
        calibration: Images of the training split, from which the range of every activation is taken.
    """

    def quantize(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8

    path.write_bytes(_convert(classifier, path.parent, quantize))


def run_litert(path: pathlib.Path, images: np.ndarray) -> np.ndarray:
    """The scores `[N, classes]` that a file gives to images `[N, height, width, channels]` in 0..255."""
    with native_messages_held(), warnings.catch_warnings():
        # TensorFlow announces LiteRT's own package; its own interpreter runs the same file with the same kernels.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated", category=UserWarning)
        interpreter = tf.lite.Interpreter(str(path))
        interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    scores = []
    for image in images:
        interpreter.set_tensor(inputs["index"], _quantized(image, inputs)[np.newaxis])
        interpreter.invoke()
        scores.append(_dequantized(interpreter.get_tensor(outputs["index"])[0], outputs))
    return np.stack(scores)


def _convert(classifier: Classifier, scratch: pathlib.Path, prepare: Callable[[Any], None] = lambda _: None) -> bytes:
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


OPSET = 18  # of December 2022: the newest that tf2onnx writes


def write_onnx(classifier: Classifier, path: pathlib.Path) -> None:
    """Writes a file of float32 operations, one PRelu for each PReLU layer.

    It takes `images` float32 `[N, height, width, channels]` in 0..255, and gives `scores` float32 `[N, classes]`.
    """
    network = classifier.network
    scores = keras.layers.Softmax(dtype="float32", name="scores")(network.output)
    with native_messages_held(), warnings.catch_warnings():
        # Keras 3.15 looks for a name that NumPy 2 dropped when it prepares tf2onnx
        warnings.filterwarnings("ignore", message="In the future `np.object`", category=FutureWarning)
        export_onnx(keras.Model(network.input, scores), path, opset_version=OPSET)
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


FORMATS = {
    "litert": Format(
        "model.tflite",
        lambda classifier, path, _: write_litert(classifier, path),
        run_litert,
        calibrated=False,
        facts={
            "input": "images, float32 [1, height, width, channels] in 0..255",
            "output": "scores, float32 [1, classes]",
        },
    ),
    "litert_int8": Format(
        "model_int8.tflite",
        write_litert_int8,
        run_litert,
        calibrated=True,
        facts={
            "input": "images, uint8 [1, height, width, channels]: pixel / scale + zero_point of its quantization",
            "output": "scores, uint8 [1, classes]: 256ths",
        },
    ),
    "onnx": Format(
        "model.onnx",
        lambda classifier, path, _: write_onnx(classifier, path),
        run_onnx,
        calibrated=False,
        facts={
            "input": "images, float32 [N, height, width, channels] in 0..255",
            "output": "scores, float32 [N, classes]",
            "opset": OPSET,
        },
        packages=("onnx", "onnxscript", "tf2onnx", "onnxruntime"),
        extra="onnx",
    ),
}


def check_formats(names: Sequence[str]) -> None:
    """Lets pass formats that can be written here.

    Raises:
        InputError: There is no such format, or a package that it needs is not installed.
    """
    for name in names:
        if name not in FORMATS:
            raise InputError(f"there is no format {name!r}{nearest(name, FORMATS)}; there are {', '.join(FORMATS)}")
        check_packages(name, FORMATS[name].packages, FORMATS[name].extra)
