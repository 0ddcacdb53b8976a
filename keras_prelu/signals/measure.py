"""What a batch does in a model: the variance of the signal and of its gradient at each layer, and a verdict."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_prelu.initialization.graph import layer_paths
from keras_prelu.signals.backward import run_backward
from keras_prelu.signals.probes import Probe, run_forward
from keras_prelu.signals.report import LayerSignal, SignalReport, Thresholds, judge


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
    """Runs a batch forward and a gradient backward and reports the variance of both at every layer with a kernel.

    With y the output of a layer before any activation, what is reported is $E[y^2]$ and $E[(\\Delta y)^2]$, whose
    factors from layer to layer equations 7 to 14 set to 1. Weights, moving averages and the seeds of dropout are left
    as they were, so that it may be called between two steps of training. Models may be nested or subclassed; a layer
    called more than once is one row, over all its calls. Recurrent cells are not measured.

    Args:
        model: Any Keras model; it need not be compiled.
        batch: Its input, as for `model(batch)`.
        targets: What `loss` compares the outputs with.
        loss: A Keras loss, its name, or a function of targets and outputs; its mean is differentiated, without
            regularizers. None sends random gradients of variance 1 back from the outputs instead, for which no labels
            are needed; then nothing is called stalled, since the scale of such gradients means nothing.
        training: Whether dropout drops and batch normalization uses the batch, as in training. With PyTorch, dropout
            without a seed of its own is not repeatable: it is drawn anew for the gradient.
        weight_decay: The factor of w in weight decay's gradient, with which the loss's is compared.
        thresholds: Where a verdict begins; None for `Thresholds()`.
        seed: Of the random gradients.

    Returns:
        The report. `print` shows its table, `rows` holds the numbers.

    Raises:
        ValueError: Targets without a loss or a loss without targets; a model none of whose layers has a kernel,
            or none of whose outputs has a gradient.

    Example:
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
    probes, outputs = run_forward(model, batch, training)
    if not probes:
        raise ValueError(f"No layer of {model.name!r} has a kernel that could be measured.")
    if loss is None and not _floating(outputs):
        raise ValueError(f"No output of {model.name!r} is of floating-point numbers: give a loss and targets.")
    objective = _random_gradients(outputs, seed) if loss is None else _mean_loss(loss, targets)
    run_backward(model, probes, batch, objective, training)
    rows = _rows(model, probes, math.nan if loss is None else weight_decay)
    return SignalReport(tuple(judge(row, rows[0], rows[-1], thresholds or Thresholds()) for row in rows))


def _random_gradients(outputs: Any, seed: int) -> Callable[[Any], Any]:
    """A sum whose gradient with respect to the outputs is normal noise of variance 1."""
    rng = np.random.default_rng(seed)
    noise = [rng.standard_normal(tuple(output.shape), "float32") for output in _floating(outputs)]

    def weighted_sum(outputs: Any) -> Any:
        return sum(
            ops.sum(ops.multiply(ops.cast(output, "float32"), weights))
            for output, weights in zip(_floating(outputs), noise, strict=True)
        )

    return weighted_sum


def _floating(outputs: Any) -> list[Any]:
    return [output for output in keras.tree.flatten(outputs) if keras.backend.is_float_dtype(output.dtype)]


def _mean_loss(loss: str | Callable[[Any, Any], Any], targets: Any) -> Callable[[Any], Any]:
    function = keras.losses.get(loss)
    return lambda outputs: ops.mean(function(targets, outputs))


def _rows(model: keras.Model, probes: Sequence[Probe], weight_decay: float) -> list[LayerSignal]:
    names = layer_paths(model)
    forward = [math.nan, *(probe.forward.mean_square for probe in probes)]
    backward = [*(probe.backward.mean_square for probe in probes), math.nan]
    return [
        LayerSignal(
            name=names.get(id(probe.layer), probe.layer.path),
            forward_mean_square=probe.forward.mean_square,
            forward_variance=probe.forward.variance,
            forward_gain=_ratio(probe.forward.mean_square, before),
            backward_mean_square=probe.backward.mean_square,
            backward_variance=probe.backward.variance,
            backward_gain=_ratio(probe.backward.mean_square, after),
            gradient_mean_square=probe.gradients.mean_square,
            decay_ratio=_ratio(probe.gradients.norm, weight_decay * probe.kernels.norm),
            dead=probe.dead,
            one_sided=probe.one_sided,
        )
        for probe, before, after in zip(probes, forward, backward[1:], strict=False)
    ]


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else math.nan
