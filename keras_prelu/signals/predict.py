"""Predicts a model's signal and gradient from its current weights and slopes, by equations 7 to 15."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras

from keras_prelu.layer.slopes import slope_layers
from keras_prelu.tables import text_table
from keras_prelu.walk.graph import Call, Graph, trace
from keras_prelu.walk.kernels import AsTheyAre, kernel_factors
from keras_prelu.walk.rule import Setting
from keras_prelu.walk.rules import has_kernel
from keras_prelu.walk.signal import Obstacle, Signal
from keras_prelu.walk.statistics import measured_signal
from keras_prelu.walk.walk import Walk, mean_over_calls, walk


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerGain:
    """The prediction for one layer with a kernel; not a number (NaN) where there is none.

    Attributes:
        name: The layer's path in the model.
        slope_before: Negative slope a of the rectifier before it: 1 where there is none, NaN behind another function.
        slope_after: Negative slope of the rectifier after it, with the same exceptions.
        forward_gain: Factor on the forward variance: n_in E[w^2] (1 + a^2) / 2 with a the slope before; behind another
            function f of x, n_in E[w^2] E[f^2] / E[x^2].
        backward_gain: Factor on the gradient's: n_out E[w^2] (1 + a^2) / 2 with a the slope after; before another
            function, n_out E[w^2] E[f'^2].
        forward_mean_square: Mean square of the layer's output before any activation: the product of the forward gains
            up to here in a chain of wide layers.
        backward_mean_square: Mean square of the gradient with respect to that output, with one of 1 at the model's
            outputs.
        likeness: C(0): how alike the network makes two images that had nothing in common, E[y y'] / E[y^2] of the
            layer's outputs y and y' for them. At 1, all images look the same to what follows. Behind a mean over many
            positions it is near 1 for noise, which averages out; give a batch of images to know it for them. E[y y']
            is the mean over any two positions of the images, so many layers whose padding makes the signal uneven
            keep it below the value at one position: at 0.64 where that is 0.95, behind 50 convolutions of 2x2.
        activation_before: The name of the function before it, where that is no rectifier.
        activation_after: The name of the function after it, where that is no rectifier.
    """

    name: str
    slope_before: float
    slope_after: float
    forward_gain: float
    backward_gain: float
    forward_mean_square: float
    backward_mean_square: float
    likeness: float
    activation_before: str | None = None
    activation_after: str | None = None


@dataclasses.dataclass(frozen=True)
class GainReport:
    """The layers with a kernel in the order of their calls; `str()` of it is its table."""

    rows: tuple[LayerGain, ...]

    @property
    def likeness(self) -> float:
        """C(0) of the whole network, at its last kernel."""
        return self.rows[-1].likeness if self.rows else math.nan

    def table(self) -> str:
        """The rows as aligned text."""
        header = ["layer", "slope before", "after", "forward gain", "product", "backward gain", "product", "C(0)"]
        return text_table(
            header,
            [
                (
                    row.name,
                    row.activation_before or row.slope_before,
                    row.activation_after or row.slope_after,
                    row.forward_gain,
                    row.forward_mean_square,
                    row.backward_gain,
                    row.backward_mean_square,
                    row.likeness,
                )
                for row in self.rows
            ],
        )

    def __str__(self) -> str:
        return self.table()


def predict_gains(model: keras.Model, batch: Any = None) -> GainReport:
    """Predicts how a model's variance changes from layer to layer, forward and backward.

    In the forward direction a layer multiplies it by $n E[w^2] (1 + a^2) / 2$ (equations 7 to 10 and 15) with n the
    fan-in and a the slope of the rectifier before the layer; in the backward direction with the fan-out and the slope
    after it (equations 12 to 15). $E[w^2]$ is the mean square of the current weights, and a that of the slopes.
    Other activations count by quadrature. Besides second moments the walk carries means and covariances, between
    positions and between images: from them follow sums, products, poolings, padding, normalizations in training, and
    how alike the network makes any two images, C(0).

    The equations take weights as independent of what comes in and every layer as wide; so they hold for a network at
    its start more than for a trained one. Inside recurrent layers nothing is predicted, nor after them or a layer that
    is not known, up to the next normalization.

    Args:
        model: A built functional or Sequential model, nested ones included.
        batch: The model's input, a list of arrays for several: the data's mean, second moment and covariances are
            taken from it, and no more. None for normal noise of mean square 1 that is the same everywhere and reaches
            the first layer as it is, past what scales and shifts the data.

    Returns:
        The gains and their products. `print` shows the table, `rows` holds the numbers.

    Raises:
        ValueError: A model without a graph, not built or subclassed, or one with slopes that are not built; a batch
            that is not one array of finite values per input.

    Examples:
        >>> model = keras.Sequential([keras.Input((4,))])
        >>> for name in ("fc1", "fc2", "fc3"):
        ...     model.add(keras.layers.Dense(4, "relu", kernel_initializer="ones", name=name))
        >>> print(predict_gains(model))
        layer  slope before  after  forward gain  product  backward gain  product   C(0)
        fc1               1      0             4        4              2        2      0
        fc2               0      0             2        8              2        1  0.318
        fc3               0      0             2       16              2      0.5  0.494

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, equations 7 to 15.
    """
    graph = trace(model)
    slope_layers(model)  # refuses a PReLU given as a layer's activation, which Keras builds when it first runs
    inputs = _noise(model) if batch is None else _measured(graph, batch)
    images = math.inf if batch is None else len(keras.tree.flatten(batch)[0])
    setting = Setting(training=True, images=images)
    walked = walk(graph, AsTheyAre(), inputs, preprocessed=batch is None, setting=setting)
    calls: dict[int, list[Call]] = defaultdict(list)
    for call in walked.graph.calls:
        if has_kernel(call):
            calls[id(call.operation)].append(call)
    return GainReport(tuple(row for of_layer in calls.values() for row in _rows(of_layer, walked)))


def _noise(model: keras.Model) -> list[Signal]:
    return [Signal.noise(1.0, max(len(each.shape) - 2, 0)) for each in model.inputs]


def _measured(graph: Graph, batch: Any) -> list[Signal]:
    arrays = keras.tree.flatten(batch)
    if len(arrays) != len(graph.inputs):
        raise ValueError(f"The batch has {len(arrays)} arrays, but the model takes {len(graph.inputs)}.")
    return [measured_signal(array) for array in arrays]


def _rows(calls: list[Call], walked: Walk) -> Iterator[LayerGain]:
    """A layer's row; its mean squares follow from what arrives at it."""
    before, output, after = (
        mean_over_calls([states[call] for call in calls]) for states in (walked.before, walked.outputs, walked.after)
    )
    forward_factor, backward_factor = kernel_factors(calls[0])
    yield LayerGain(
        name=calls[0].path,
        slope_before=_slope(before),
        slope_after=_slope(after),
        forward_gain=forward_factor * _effect(before),
        backward_gain=backward_factor * _effect(after),
        forward_mean_square=_second_moment(output),
        backward_mean_square=_second_moment(after),
        likeness=output.likeness if isinstance(output, Signal) else math.nan,
        activation_before=_function(before),
        activation_after=_function(after),
    )


def _second_moment(state: Signal | Obstacle) -> float:
    return state.second_moment if isinstance(state, Signal) else math.nan


def _slope(state: Signal | Obstacle) -> float:
    slope = state.negative_slope if isinstance(state, Signal) else None
    return math.nan if slope is None else slope


def _function(state: Signal | Obstacle) -> str | None:
    activation = state.activation if isinstance(state, Signal) else None
    return activation.name if activation is not None and activation.negative_slope is None else None


def _effect(state: Signal | Obstacle) -> float:
    """The factor of an activation f: (1 + a^2) / 2 of a rectifier, else E[f^2] / E[x^2], or E[f'^2] of a gradient."""
    slope = _slope(state)
    if not math.isnan(slope) or isinstance(state, Obstacle):
        return (1 + slope**2) / 2
    return _second_moment(state) / _second_moment(state.source) if state.source is not None else math.nan
