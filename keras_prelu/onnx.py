"""Models as ONNX files in which a PReLU is one operation."""

from pathlib import Path
from typing import Any

import keras

from keras_prelu.extras import needing


def export_onnx(model: keras.Model, path: str | Path, **options: Any) -> None:
    """Writes a model's inference as an ONNX file with one PRelu operation per PReLU layer.

    `keras.Model.export(format="onnx")` alone leaves the five operations (Relu, Neg, Relu, Mul, Add) that the layer is
    written with. Layers with a slope per element keep them where the file needs other axes than Keras.

    Args:
        model: A built model of float32 weights, under the TensorFlow backend.
        path: Where the file goes.
        **options: Those of `keras.Model.export`, for example `opset_version` and `input_signature`.

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
    model.export(path, format="onnx", verbose=False, **{"input_signature": signature, **options})
    rules = pattern.RewriteRuleSet([pattern.RewriteRule(canonical, fused)], commute=True)
    onnx.save(optimize(rewrite(onnx.load(path), pattern_rewrite_rules=rules)), path)
