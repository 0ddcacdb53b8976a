"""PReLU on TensorFlow: a forward pass that converters know, a gradient that keeps one tensor and costs little."""

import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# A slope from here up gives x back as f(x) / slope; below, roundings would grow too much, and x itself is kept.
_SMALLEST_INVERTIBLE_SLOPE = 2.0**-6


def rectify(x: tf.Tensor, alpha: tf.Tensor, training: bool) -> tf.Tensor:
    """max(0, x) + alpha * min(0, x), with the gradient of equations 2 and 3.

    In a graph, the backward pass reads the output, which the next layer keeps anyway, and lets go of x wherever all
    slopes are large enough to find x from the output; otherwise, and in eager mode, it reads x and nothing else.
    """
    alpha = tf.convert_to_tensor(alpha)  # a variable would be read inside, and its gradient asked for there
    in_graph = not tf.executing_eagerly()
    fused = in_graph and _can_be_fused(x)
    forward = _fused_forward if fused and training else _forward
    backward = _fused_backward if fused else _backward
    outputs: list[tf.Tensor] = []

    @tf.custom_gradient
    def with_gradient(x: tf.Tensor, alpha: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        slope = tf.cast(alpha, x.dtype)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            kept, divisor = _x_or_output(x, outputs[0], slope) if outputs else (x, tf.ones((), x.dtype))
            dx, products = backward(upstream, kept, slope)
            dalpha = _sum_to_shape_of(alpha, products)
            return dx, tf.cast(dalpha / tf.cast(divisor, dalpha.dtype), alpha.dtype)

        return forward(x, slope), gradient

    y = with_gradient(x, alpha)
    if in_graph:
        # The tensor outside, unlike the one inside, carries this gradient itself, so that it differentiates twice.
        outputs.append(y)
    return y


def _can_be_fused(x: tf.Tensor) -> bool:
    # XLA compiles anew for each shape: only where a new shape means a new graph anyway. Tried on CPUs under Linux.
    return bool(x.shape.is_fully_defined() and sys.platform == "linux" and not tf.config.list_logical_devices("GPU"))


def _forward(x: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    # The one form that TFLite fuses to a single PRELU; max(0, x) + slope * min(0, x) it does not.
    return tf.nn.relu(x) + (-slope) * tf.nn.relu(-x)


def _backward(upstream: tf.Tensor, kept: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradient with respect to x, and the products that sum up to the one with respect to the slopes."""
    dx = tf.where(kept > 0, upstream, slope * upstream)
    precise = tf.float32 if kept.dtype.size < 4 else kept.dtype  # sums over whole maps overflow in float16
    return dx, tf.cast(upstream, precise) * tf.cast(tf.minimum(kept, 0), precise)


# One pass over memory where the operations one by one take five.
_fused_forward = tf.function(_forward, jit_compile=True, autograph=False)
_fused_backward = tf.function(_backward, jit_compile=True, autograph=False)


def _x_or_output(x: tf.Tensor, y: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What the gradient is computed from, and what the slopes' gradient is to be divided by then."""
    invertible = tf.reduce_min(slope) >= tf.cast(_SMALLEST_INVERTIBLE_SLOPE, slope.dtype)
    kept = tf.cond(invertible, lambda: y, lambda: x)
    return kept, tf.where(invertible, slope, tf.ones((), slope.dtype))


def _sum_to_shape_of(alpha: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Sums over the axes along which alpha is broadcast (equation 2's sum over positions)."""
    extra = values.shape.rank - alpha.shape.rank
    broadcast = [*range(extra), *(extra + axis for axis, size in enumerate(alpha.shape) if size == 1)]
    if broadcast == list(range(values.shape.rank - 1)) and broadcast:
        summed = tf.raw_ops.BiasAddGrad(out_backprop=values)  # the same sum, in a quarter of reduce_sum's time
    else:
        summed = tf.reduce_sum(values, broadcast)
    return tf.reshape(summed, tf.shape(alpha))
