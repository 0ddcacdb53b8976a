"""PReLU on TensorFlow: a forward pass that converters know, a gradient that keeps one tensor and costs little."""

import math
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext  # no public name shows jit_compile

# A slope from here up gives x back as f(x) / slope; below, roundings would grow too much, and x itself is kept.
_SMALLEST_INVERTIBLE_SLOPE = 2.0**-6
_ADDENDS = 8  # of 4, 8, 16, 32 and 64 the fastest; neighbouring positions are no faster


def rectify(x: tf.Tensor, alpha: tf.Tensor, training: bool) -> tf.Tensor:
    """max(0, x) + alpha * min(0, x), with the gradient of equations 2 and 3.

    In a graph on CPUs, XLA compiles both passes of this layer alone. The backward pass then reads the output, which
    the next layer keeps anyway, and lets go of x if all slopes are large enough to find x from the output; a
    conditional chooses at run time. In eager mode, on GPUs and inside a function that XLA compiles as a whole, the
    backward pass reads x and there is no conditional. All of this was measured on CPUs under Linux, not on GPUs.
    """
    alpha = tf.convert_to_tensor(alpha)  # a variable would be read inside, and its gradient asked for there
    by_xla = not tf.executing_eagerly() and _suits_xla(x)
    fused = by_xla and not GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    forward = _fused_forward if fused and training else _forward
    backward = _fused_backward if fused else _backward
    addends = _addends(x, alpha) if by_xla else 1
    outputs: list[tf.Tensor] = []

    @tf.custom_gradient
    def with_gradient(x: tf.Tensor, alpha: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        slope = tf.cast(alpha, x.dtype)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            kept, divisor = _x_or_output(x, outputs[0], slope) if fused else (x, tf.ones((), x.dtype))
            dx, products = backward(upstream, kept, slope, addends)
            dalpha = _sum_over_positions(products, alpha, x.shape)
            return dx, tf.cast(dalpha / tf.cast(divisor, dalpha.dtype), alpha.dtype)

        return forward(x, slope), gradient

    y = with_gradient(x, alpha)
    outputs.append(y)  # which, unlike the tensor inside, carries this gradient itself and so differentiates twice
    return y


def _suits_xla(x: tf.Tensor) -> bool:
    known = x.shape.rank is not None and x.shape[1:].is_fully_defined()  # XLA compiles anew for each shape
    on_cpu = all(device.device_type == "CPU" for device in tf.config.list_logical_devices())
    return bool(known and on_cpu and sys.platform == "linux")


def _forward(x: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    # The one form that TFLite fuses to a single PRELU; max(0, x) + slope * min(0, x) it does not.
    return tf.nn.relu(x) + (-slope) * tf.nn.relu(-x)


def _backward(upstream: tf.Tensor, kept: tf.Tensor, slope: tf.Tensor, addends: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradient with respect to x, and products whose sum over positions is the one with respect to the slopes.

    The products of that many positions are summed already, so there are fewer numbers to write and to read again.
    """
    dx = upstream * tf.where(kept > 0, tf.ones((), slope.dtype), slope)
    precise = tf.float32 if kept.dtype.size < 4 else kept.dtype  # sums over whole maps overflow in float16
    products = tf.cast(upstream, precise) * tf.cast(tf.minimum(kept, 0), precise)
    if addends == 1:
        return dx, products
    shape = (-1, addends, math.prod(kept.shape[1:-1]) // addends, kept.shape[-1])
    # Not by reduce_sum, which XLA may join with the sum over all positions, and that is slow on CPUs.
    return dx, tf.add_n(tf.unstack(tf.reshape(products, shape), axis=1))


# Each is one or two passes over memory, where its operations one by one take five.
_fused_forward = tf.function(_forward, jit_compile=True, autograph=False)
_fused_backward = tf.function(_backward, jit_compile=True, autograph=False)


def _x_or_output(x: tf.Tensor, y: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The tensor to compute the gradient from, and the divisor that the slopes' gradient needs with it."""
    invertible = tf.reduce_min(slope) >= tf.cast(_SMALLEST_INVERTIBLE_SLOPE, slope.dtype)
    kept = tf.cond(invertible, lambda: y, lambda: x)
    return kept, tf.where(invertible, slope, tf.ones((), slope.dtype))


def _addends(x: tf.Tensor, alpha: tf.Tensor) -> int:
    """How many positions of a map can be added up at once: 1, 2, 4 or 8."""
    return math.gcd(math.prod(x.shape[1:-1]), _ADDENDS) if _along_last_axis(alpha) and x.shape.rank > 2 else 1


def _along_last_axis(alpha: tf.Tensor) -> bool:
    return all(size == 1 for size in alpha.shape[:-1])


def _sum_over_positions(products: tf.Tensor, alpha: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """Equation 2: sums over the axes along which alpha is broadcast against x, which is of this shape."""
    # Not by BiasAddGrad, though it is faster: oneDNN takes one that reads the same node as a convolution's gradient for
    # the gradient of that convolution's bias, and gives it another output of the node.
    if _along_last_axis(alpha) and shape.rank > 1:
        axes = list(range(products.shape.rank - (alpha.shape.num_elements() != 1)))
    else:
        extra = shape.rank - alpha.shape.rank
        axes = [*range(extra), *(extra + axis for axis, size in enumerate(alpha.shape) if size == 1)]
    return tf.reshape(tf.reduce_sum(products, axes), tf.shape(alpha))
