"""The variance of the signal and of its gradient at each layer of a model, measured on a batch."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_prelu.keras_internals import flatten_layers
from keras_prelu.signals.gradients import Gradients, Tap, differentiate
from keras_prelu.signals.report import LayerSignal, SignalReport, Thresholds, judge
from keras_prelu.signals.watch import state_kept, watched
from keras_prelu.walk.fans import layer_kernels
from keras_prelu.walk.graph import layer_paths


def measure_gains(
    model: keras.Model,
    batch: Any,
    targets: Any = None,
    *,
    loss: str | Callable[[Any, Any], Any] | None = None,
    training: bool = True,
    weight_decay: float = 5e-4,
    thresholds: Thresholds | None = None,
    seed: int = 0,
) -> SignalReport:
    """Runs a batch forward and a gradient backward, and reports the size of both at every layer with a kernel.

    With y the output of a layer before any activation, the report has $E[y^2]$ and $E[(\\Delta y)^2]$; equations 7 to
    14 set their factors from layer to layer to 1. The function changes no weights, moving averages or seeds, so it may
    be called between two training steps. Models may be nested or subclassed. A layer that is called several times is
    one row, over all its calls. Recurrent cells are not measured. The outputs of all layers and their gradients are in
    memory at once.

    Args:
        model: Any Keras model; it need not be compiled.
        batch: Its input, as for `model(batch)`.
        targets: What `loss` compares the outputs with.
        loss: A Keras loss, its name, or a function of targets and outputs. Its mean is differentiated, without
            regularizers. None sends random gradients of variance 1 back from the outputs instead, which needs no
            labels. No layer is called stalled then, since the scale of such gradients means nothing.
        training: Whether dropout drops and batch normalization uses the batch, as in training.
        weight_decay: The factor of w in the gradient of weight decay, with which the loss's gradient is compared.
        thresholds: The limits of the verdicts; None for `Thresholds()`.
        seed: Seed of the random gradients.

    Returns:
        The report. `print` shows its table, `rows` holds the numbers.

    Raises:
        ValueError: Targets without a loss or a loss without targets; a model none of whose layers has a kernel,
            or none of whose outputs has a gradient.

    Examples:
        >>> import numpy as np
        >>> model = keras.Sequential(
        ...     [keras.layers.Dense(4, "relu", kernel_initializer="ones", name=name) for name in ("fc1", "fc2")]
        ... )
        >>> report = measure_gains(model, np.ones((2, 4), "float32"))
        >>> [(row.name, row.forward_mean_square, row.forward_gain) for row in report.rows]
        [('fc1', 16.0, nan), ('fc2', 256.0, 16.0)]

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 2.2 and its footnote 2.
    """
    if (targets is None) != (loss is None):
        raise ValueError("targets and loss go together: give both, or neither for random gradients at the outputs.")
    if not model.built:
        model(batch)
    kernels = [kernel for layer in flatten_layers(model) for kernel in layer_kernels(layer) if kernel.trainable]
    objective = _random_gradients(model.name, seed) if loss is None else _mean_loss(loss, targets)
    run = _Run(model, batch, training, objective)
    with state_kept(model), watched(model, run.see_preactivation, run.see_rectifier):
        measured = differentiate(run, kernels)
    rows = _rows(run.layers, measured, kernels, layer_paths(model), math.nan if loss is None else weight_decay)
    return SignalReport(tuple(judge(row, rows[0], rows[-1], thresholds or Thresholds()) for row in rows))


@dataclasses.dataclass
class _Layer:
    """A layer with a kernel: the numbers of the tensors that it tapped, and of the rectifiers that ran after it."""

    layer: keras.Layer
    taps: list[int] = dataclasses.field(default_factory=list)
    rectifiers: list[int] = dataclasses.field(default_factory=list)


class _Run:
    """A run of a watched model to a scalar; `layers` are those with a kernel, in the order in which they first ran."""

    def __init__(self, model: keras.Model, batch: Any, training: bool, objective: Callable[[Any], Any]) -> None:
        self.model, self.batch, self.training, self.objective = model, batch, training, objective

    def __call__(self, tap: Tap) -> tuple[Any, list[Any]]:
        """The scalar, and the fractions of dead and one-sided units of each rectifier."""
        self.tap, self.num_taps = tap, 0
        self.fractions: list[Any] = []
        self.layers: dict[int, _Layer] = {}
        self.latest: _Layer | None = None
        outputs = self.model(self.batch, training=self.training)
        if not self.layers:
            raise ValueError(f"No layer of {self.model.name!r} has a kernel that could be measured.")
        return self.objective(outputs), self.fractions

    def see_preactivation(self, layer: keras.Layer, values: Any) -> Any:
        self.latest = self.layers.setdefault(id(layer), _Layer(layer))
        self.latest.taps.append(self.num_taps)
        self.num_taps += 1
        return self.tap(values)

    def see_rectifier(self, layer: keras.Layer, inputs: Any, outputs: Any) -> None:
        if self.latest is not None:
            self.latest.rectifiers.append(len(self.fractions))
            self.fractions.append(_dead_and_one_sided(layer, inputs, outputs))


def _dead_and_one_sided(layer: keras.Layer, inputs: Any, outputs: Any) -> Any:
    """Of a rectifier's units (channels), the fractions that answered 0 only, and whose input kept to one side of 0."""
    data_format = getattr(layer, "data_format", None) or keras.config.image_data_format()
    channel_axis = 1 if data_format == "channels_first" else len(inputs.shape) - 1
    others = [axis for axis in range(len(inputs.shape)) if axis != channel_axis]
    above, below = ops.all(inputs > 0, others), ops.all(inputs <= 0, others)
    units = [ops.all(outputs == 0, others), ops.logical_or(above, below)]
    return ops.mean(ops.cast(ops.stack(units), "float32"), 1)


def _random_gradients(name: str, seed: int) -> Callable[[Any], Any]:
    """A sum whose gradient with respect to the outputs is normal noise of variance 1."""

    def weighted_sum(outputs: Any) -> Any:
        rng = np.random.default_rng(seed)
        floats = [each for each in keras.tree.flatten(outputs) if keras.backend.is_float_dtype(each.dtype)]
        if not floats:
            raise ValueError(f"No output of {name!r} is of floating-point numbers: give a loss and targets.")
        return sum(
            ops.sum(ops.multiply(ops.cast(each, "float32"), rng.standard_normal(tuple(each.shape), "float32")))
            for each in floats
        )

    return weighted_sum


def _mean_loss(loss: str | Callable[[Any, Any], Any], targets: Any) -> Callable[[Any], Any]:
    function = keras.losses.get(loss)
    return lambda outputs: ops.mean(function(targets, outputs))


def _rows(
    layers: dict[int, _Layer],
    measured: Gradients,
    kernels: Sequence[keras.Variable],
    names: dict[int, str],
    weight_decay: float,
) -> list[LayerSignal]:
    values, gradients, kernel_gradients, fractions = measured
    of_kernels = {id(kernel): gradient for kernel, gradient in zip(kernels, kernel_gradients, strict=True)}
    forward = [_Moments.of([values[tap] for tap in each.taps]) for each in layers.values()]
    backward = [_Moments.of([gradients[tap] for tap in each.taps]) for each in layers.values()]
    before = [math.nan, *(each.mean_square for each in forward)]
    after = [*(each.mean_square for each in backward[1:]), math.nan]
    rows = []
    for index, each in enumerate(layers.values()):
        own = layer_kernels(each.layer)
        gradient, kernel = _Moments.of([of_kernels[id(k)] for k in own if id(k) in of_kernels]), _Moments.of(own)
        units = [ops.convert_to_numpy(fractions[rectifier]) for rectifier in each.rectifiers]
        dead, one_sided = np.max(units, 0).tolist() if units else (math.nan, math.nan)
        rows.append(
            LayerSignal(
                name=names.get(id(each.layer), each.layer.path),
                forward_mean_square=forward[index].mean_square,
                forward_variance=forward[index].variance,
                forward_gain=_ratio(forward[index].mean_square, before[index]),
                backward_mean_square=backward[index].mean_square,
                backward_variance=backward[index].variance,
                backward_gain=_ratio(backward[index].mean_square, after[index]),
                gradient_mean_square=gradient.mean_square,
                decay_ratio=_ratio(gradient.norm, weight_decay * kernel.norm),
                dead=dead,
                one_sided=one_sided,
            )
        )
    return rows


@dataclasses.dataclass(frozen=True)
class _Moments:
    """Mean square, variance about the mean, and norm (root of the sum of squares) of numbers; NaN of none."""

    mean_square: float
    variance: float
    norm: float

    @classmethod
    def of(cls, tensors: Sequence[Any]) -> "_Moments":
        """The moments over the elements of all the tensors, in single precision where these are."""
        if not tensors:
            return cls(math.nan, math.nan, math.nan)
        counts = np.array([math.prod(tensor.shape) for tensor in tensors])
        means, squares, variances = np.transpose([_mean_square_variance(tensor) for tensor in tensors])
        weights = counts / counts.sum()
        mean_square = float(weights @ squares)
        variance = float(weights @ (variances + (means - weights @ means) ** 2))
        return cls(mean_square, variance, math.sqrt(mean_square * counts.sum()))


def _mean_square_variance(tensor: Any) -> np.ndarray:
    single = ops.cast(tensor, "float32")
    mean = ops.mean(single)
    moments = ops.stack([mean, ops.mean(ops.square(single)), ops.mean(ops.square(single - mean))])
    return ops.convert_to_numpy(moments).astype("float64")


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else math.nan
