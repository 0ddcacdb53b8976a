"""LiteRT files of a classifier, in float and in integers, and how they are run."""

import pathlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from training.environment import native_messages_held
from training.exports.classifier import Classifier
from training.exports.signatures import save_model, signature


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
