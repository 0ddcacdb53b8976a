"""An ONNX file of a classifier, and how it is run."""

import pathlib
import warnings

import keras
import numpy as np

from keras_prelu.onnx import export_onnx
from training.environment import native_messages_held
from training.exports.classifier import Classifier

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
