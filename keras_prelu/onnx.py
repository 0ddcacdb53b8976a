"""ONNX export in which each PReLU is one operation."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_prelu.extras import needing

_SECONDS = 0.5  # between two collections


def export_onnx(model: keras.Model, path: str | Path, **options: Any) -> None:
    """Writes a model as an ONNX file for inference, with one PRelu operation per PReLU layer.

    `keras.Model.export(format="onnx")` alone writes the five operations that the layer consists of (Relu, Neg, Relu,
    Mul, Add). A layer with a slope per element keeps these where ONNX orders the axes in another way than Keras.

    Args:
        model: A built model of float32 weights, under the TensorFlow backend.
        path: The path of the file.
        **options: Options of `keras.Model.export`, for example `opset_version` and `input_signature`.

    Raises:
        ImportError: onnx, onnxscript or tf2onnx is not installed; the extra `onnx` brings them.
    """
    with needing("onnx"):
        import onnx
        import tf2onnx  # type: ignore[import-untyped]  # noqa: F401  Keras imports it late
        from onnxscript.optimizer import optimize
        from onnxscript.rewriter import pattern, rewrite

    def canonical(op: Any, x: Any, minus_slope: Any) -> Any:
        return op.Add(op.Relu(x), op.Mul(op.Relu(op.Neg(x)), minus_slope))

    def fused(op: Any, x: Any, minus_slope: Any) -> Any:
        return op.PRelu(x, op.Neg(minus_slope))

    signature = [keras.layers.InputSpec(shape=each.shape, dtype=each.dtype) for each in model.inputs]
    with _copies_collected():
        model.export(path, format="onnx", verbose=False, **{"input_signature": signature, **options})
    rules = pattern.RewriteRuleSet([pattern.RewriteRule(canonical, fused)], commute=True)
    onnx.save(optimize(rewrite(onnx.load(path), pattern_rewrite_rules=rules)), path)


@contextmanager
def _copies_collected() -> Iterator[None]:
    """Frees the copies of all weights that tf2onnx leaves behind, dozens of them, each in a cycle.

    Python collects cycles by the number of objects, and these few are large.
    """
    ended = threading.Event()

    def collect() -> None:
        while not ended.wait(_SECONDS):
            gc.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
