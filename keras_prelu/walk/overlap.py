"""How much the channels of a signal have in common, and the batch normalizations' gain that follows from it.

A batch normalization divides channel c by a variance w_c^T C w_c, with w_c the weights of the channel and C the
covariance of the features that the kernel sees. It multiplies the gradient by one over that, and the kernel, further
down, by |w_c|^2. On average over the weights the product is above d / tr C, the more so the fewer of the d features
are independent: by 1 + 2 (tr C^2 / (tr C)^2 - 1 / d), to first order. Without it the predicted gradient of a deep
network falls behind by a few percent at every kernel.

The overlap of a signal is the mean squared correlation of two channels. A kernel of d random weights gives its outputs
an overlap of 1 / d plus that of its inputs; an elementwise function keeps the part of it that is linear.
"""

import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from keras_prelu.walk.activations import linear_share
from keras_prelu.walk.fans import DEPTHWISE, fans
from keras_prelu.walk.graph import Call, Graph
from keras_prelu.walk.pooling import without_axes
from keras_prelu.walk.rule import Setting, position_sizes
from keras_prelu.walk.rules import branch_scale, has_kernel, sums
from keras_prelu.walk.signal import Obstacle, Signal


def overlaps(graph: Graph, signals: Mapping[int, Signal | Obstacle]) -> dict[int, float]:
    """The overlap of every tensor.

    Args:
        graph: The graph.
        signals: The signal that each tensor is.
    """
    found = dict.fromkeys(graph.inputs, 0.0)
    for call in graph.calls:
        before = [found[tensor] for tensor in call.inputs] or [0.0]
        overlap = sum(before) / len(before)
        arriving = [signals[tensor] for tensor in call.inputs]
        if has_kernel(call):
            overlap = overlap if isinstance(call.operation, DEPTHWISE) else overlap + 1 / _features(call)
        elif len(call.inputs) > 1 and (sums(call) or branch_scale(call) != 1):
            overlap = _of_sum(call, arriving, before)
        leaving = signals[call.outputs[0]]
        if isinstance(leaving, Signal) and leaving.source is not None and leaving.activation is not None:
            first = arriving[0]
            if has_kernel(call) or (isinstance(first, Signal) and first.activation is not leaving.activation):
                overlap *= linear_share(leaving.activation, leaving.source) ** 2
        found.update(dict.fromkeys(call.outputs, overlap))
    return found


def _features(call: Call) -> float:
    return fans(call.operation)[-1].fan_in


def _of_sum(call: Call, signals: Sequence[Signal | Obstacle], overlaps: Sequence[float]) -> float:
    """The overlap of a sum of independent signals, weighted by their variances."""
    variances = np.array([_variance(signal) if isinstance(signal, Signal) else 0.0 for signal in signals])
    variances[1:] *= branch_scale(call) ** 2
    total = variances.sum()
    return float(np.square(variances / total) @ np.array(overlaps)) if total else 0.0


def _variance(signal: Signal) -> float:
    return max(signal.second_moment - float(signal.shares @ signal.others), 0.0)


def normalization_gain(call: Call, signal: Signal, overlap: float, maker: Call | None, setting: Setting) -> float:
    """The factor on the gradient's second moment that comes of channels of different variance.

    Args:
        call: The batch normalization.
        signal: The signal at its input.
        overlap: That signal's overlap.
        maker: The call with a kernel right before it, if there is one.
        setting: How the model runs: a batch of few images adds to the spread of variances.
    """
    if maker is not None:  # the part that d weights alone would make goes again when the gradient passes the kernel
        overlap -= overlap if isinstance(maker.operation, DEPTHWISE) else 1 / _features(maker)
    return 1 + 2 * max(overlap, 0.0) + 2 / _samples(call, signal, setting)


def _samples(call: Call, signal: Signal, setting: Setting) -> float:
    """The number of independent values that a variance is taken over."""
    if math.isinf(setting.images):
        return math.inf
    mixed = signal.mixed()
    correlations = (mixed.near - mixed.others) / max(_variance(signal), sys.float_info.min)
    squared = Signal(np.ones(1), np.zeros(1), np.square(correlations), np.zeros(1))
    return float(setting.images / max(without_axes(squared, position_sizes(call)).second_moment, 1e-3))
