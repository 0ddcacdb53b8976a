"""The formats that a classifier is exported in beside the SavedModel: how each is written, run and used."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from training.config import nearest
from training.errors import InputError
from training.exports.classifier import Classifier
from training.exports.litert import run_litert, write_litert, write_litert_int8
from training.exports.onnx_file import OPSET, run_onnx, write_onnx
from training.extras import check_packages


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
