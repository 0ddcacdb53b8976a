"""The parametric rectifier as a function, on any Keras backend."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

if keras.config.backend() == "tensorflow":
    from keras_prelu.layer.functional_tensorflow import rectify
else:

    def rectify(x: Any, alpha: Any, training: bool) -> Any:
        """The backend's own gradient of this form is the paper's: x = 0 belongs to the branch of the slope."""
        # In float32 where x is in half precision, which could not hold the gradient's sum over a map.
        wide = "float32" if keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16") else x.dtype
        return ops.where(x > 0, x, ops.cast(ops.cast(alpha, wide) * ops.cast(x, wide), x.dtype))


def prelu(x: Any, alpha: Any, training: bool = False) -> Any:
    """Passes positive values through and scales the others by a slope.

    $$f(x) = \\max(0, x) + \\alpha \\min(0, x)$$

    The gradients are the paper's: df/dx = 1 for x > 0 and alpha elsewhere, df/dalpha = 0 for x > 0 and x elsewhere.
    At x = 0, `keras.layers.PReLU` has df/dx = 0.

    Args:
        x: Tensor of floating-point numbers, of any shape.
        alpha: The slope: a number, or a tensor that broadcasts against x without enlarging it. Its gradient has its
            own dtype, and is summed up in float32 at least.
        training: Whether the result is going to be differentiated. On TensorFlow the forward pass is then compiled
            where that is faster; otherwise it keeps the form that TFLite and ONNX converters know.

    Returns:
        Tensor of x's shape and dtype.

    Raises:
        ValueError: x is not of floating-point numbers, or alpha would enlarge it.

    Examples:
        >>> import numpy as np
        >>> np.asarray(prelu(np.array([-2.0, 0.0, 3.0], "float32"), 0.25))
        array([-0.5,  0. ,  3. ], dtype=float32)

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, equations 1 to 3.
    """
    if keras.utils.is_keras_tensor(x):
        return PReLUFunction(training=training)(x, alpha)
    x = ops.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "float" not in dtype:
        raise ValueError(f"prelu takes floating-point numbers, not {dtype}.")
    alpha = ops.convert_to_tensor(alpha, dtype if isinstance(alpha, int | float) else None)
    _check_broadcast(x.shape, alpha.shape)
    return rectify(x, alpha, training)


def _check_broadcast(shape: Sequence[int | None], slope_shape: Sequence[int | None]) -> None:
    ends = zip(reversed(tuple(shape)), reversed(tuple(slope_shape)), strict=False)
    if len(slope_shape) > len(shape) or any(
        slopes not in (1, size, None) and size is not None for size, slopes in ends
    ):
        raise ValueError(
            f"alpha of shape {tuple(slope_shape)} does not fit x of shape {tuple(shape)}: from the last axis "
            "backwards, each of its sizes must be 1 or x's."
        )


@keras.saving.register_keras_serializable(package="keras_prelu")
class PReLUFunction(keras.Operation):
    """`prelu` as a node of a functional model, which it becomes when called on a symbolic tensor."""

    def __init__(self, training: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.training = training

    def call(self, x: Any, alpha: Any) -> Any:
        """Applies `prelu`."""
        return prelu(x, alpha, self.training)

    def compute_output_spec(self, x: Any, alpha: Any) -> keras.KerasTensor:
        """Those of x."""
        _check_broadcast(x.shape, alpha.shape if keras.utils.is_keras_tensor(alpha) else np.shape(alpha))
        return keras.KerasTensor(x.shape, x.dtype)
