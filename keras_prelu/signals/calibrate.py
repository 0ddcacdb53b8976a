"""Layer-sequential unit variance: scales the kernels, layer by layer, until a batch has the same size everywhere."""

import contextlib
import dataclasses
import math
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prelu.initialization.places import kernel_places
from keras_prelu.keras_internals import flatten_layers, replaced
from keras_prelu.signals.scaling import Calibrator, Scaled
from keras_prelu.signals.watch import state_kept, watched
from keras_prelu.tables import text_table
from keras_prelu.walk.fans import fans, layer_kernels
from keras_prelu.walk.graph import layer_paths, trace

# What follows one of these does not depend on the scale of its input. (`layers.Normalization` divides by constants.)
_SCALE_INVARIANT = (
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization),
    *(layers.RMSNormalization, layers.UnitNormalization),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibratedKernel:
    """The row of a kernel in the report of `calibrate`.

    Attributes:
        path: The path of the layer in the model.
        kernel: The name of the variable; the last one of a layer that has several.
        target: The target of the second moment of the layer's output.
        found: The second moment before scaling, behind layers that are scaled already; NaN where it was not measured.
        reached: The second moment after scaling; equal to `found` where the kernel was left unchanged.
        factor: The factor on the kernel; 1 where it was left unchanged.
        reason: The reason why the kernel was left unchanged or missed its target; empty otherwise.
    """

    path: str
    kernel: str
    target: float
    found: float
    reached: float
    factor: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The report of `calibrate`: a row per kernel, in the order in which the layers ran; `str()` of it is a table."""

    kernels: tuple[CalibratedKernel, ...]

    @property
    def moved(self) -> tuple[CalibratedKernel, ...]:
        """The kernels that were scaled."""
        return tuple(row for row in self.kernels if row.factor != 1)

    @property
    def left(self) -> tuple[CalibratedKernel, ...]:
        """The kernels that were left unchanged, each with its reason."""
        return tuple(row for row in self.kernels if row.factor == 1)

    def __str__(self) -> str:
        header = ["layer", "kernel", "target", "found", "reached", "factor", "left, or short of its target"]
        return text_table(header, list(map(dataclasses.astuple, self.kernels)))


def calibrate(
    model: keras.Model,
    batch: Any,
    *,
    target: float | None = None,
    tolerance: float = 0.05,
    max_iterations: int = 10,
    only: Collection[str] | None = None,
) -> Calibration:
    """Scales the kernels of a model until each layer's output has the right second moment on a batch.

    $$W \\leftarrow W \\sqrt{m / E[y^2]}$$

    Here, y = W x + b is a layer's output before its activation, and m the target. The function measures and scales the
    layers in the order in which they run, each behind layers that are scaled already. `initialize` sets the same
    second moment from the graph, without data. `calibrate` also covers effects that have no formula: layers that
    `initialize` does not know, images whose neighbouring pixels are alike, padding. It works on any model, subclassed
    ones included.

    Only kernels change. Biases keep their values, which are 0 in a new model. Of a layer with several kernels, the last
    one is scaled. A layer that is called several times gets the target as the mean over its calls. Dropout and other
    noise are off, as at inference, but BatchNormalization uses the statistics of the batch, so nothing is random.
    Moving averages and seeds do not change. The cost is that of about three runs of the model (one to check the batch,
    one to measure, and one more of each layer that is scaled), and more runs if layers that are called several times
    have to be scaled.

    The report gives a reason for each kernel that is left unchanged: it is within `tolerance`; it is frozen; a
    normalization directly after it in the graph would undo the scale; its output is zero or not finite; it belongs to a
    recurrent cell, whose signal runs through time; or no scale reaches the target, because the bias alone exceeds it or
    because the layer normalizes its kernel itself.

    Args:
        model: A model of any kind. One that is not built is built by the batch.
        batch: Its input, as for `model(batch)`: about a hundred examples that are typical of the data.
        target: The second moment of each output. None for 1, except for 1 / L at the end of each of L residual
            branches, as in `initialize`.
        tolerance: The relative deviation from the target at which a kernel is left unchanged.
        max_iterations: The largest number of times that a kernel is scaled. Without a bias, one is enough.
        only: The kernels to scale, by their layers' paths or as the keys of `initialize(model).unplaced`; None for all.

    Returns:
        The kernels, with the factors of those that were moved and the reasons of those that were left.

    Raises:
        ValueError: An argument outside its range; a batch that is empty, not finite or of another shape than the input;
            a model without a kernel; a name in `only` that the model does not have.

    Examples:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((4,))])
        >>> for name in ("fc1", "fc2"):
        ...     model.add(keras.layers.Dense(4, "relu", kernel_initializer="ones", name=name))
        >>> print(calibrate(model, np.ones((2, 4), "float32")))
        layer  kernel  target  found  reached  factor  left, or short of its target
        fc1    kernel       1     16        1    0.25
        fc2    kernel       1     16        1    0.25

    Reference:
        Mishkin and Matas, "All you need is a good init", 2016 (https://arxiv.org/abs/1511.06422), algorithm 1, without
        its orthonormal start, and for the second moment in place of the variance: it is what equations 7 to 15 of He et
        al., "Delving Deep into Rectifiers", 2015, keep.
    """
    _check(target, tolerance, max_iterations)
    _check_batch(model, batch)
    kernels = _kernels(model, target, only)
    calibrator = Calibrator(tolerance, max_iterations)
    with contextlib.ExitStack() as stack:
        stack.enter_context(state_kept(model))
        stack.enter_context(watched(model, calibrator.see_preactivation))
        for layer in flatten_layers(model):
            if isinstance(layer, layers.BatchNormalization):
                stack.enter_context(_by_batch(layer))
        for kernel in kernels:
            if layer_kernels(kernel.layer):
                stack.enter_context(replaced(kernel.layer, "call", calibrator.calibrated(kernel)))
        calibrator.run(model, batch, kernels)
    return Calibration(tuple(map(_row, sorted(kernels, key=lambda kernel: kernel.turn))))


def _check(target: float | None, tolerance: float, max_iterations: int) -> None:
    if target is not None and not 0 < target < math.inf:
        raise ValueError(f"target is {target}, but must be positive and finite, or None.")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}, but must be between 0 and 1.")
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}, but must be at least 1.")


def _check_batch(model: keras.Model, batch: Any) -> None:
    for each in keras.tree.flatten(batch):
        array = np.asarray(ops.convert_to_numpy(each))
        if not array.size:
            raise ValueError(f"The batch is empty: an input of shape {array.shape} has nothing to measure.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError("The batch holds numbers that are not finite: nothing can be measured on it.")
    try:
        model(batch, training=False)
    except Exception as error:  # each backend has errors of its own for shapes that do not fit
        raise ValueError(f"{model.name!r} does not take this batch: {error}") from error


def _by_batch(layer: keras.Layer) -> contextlib.AbstractContextManager[None]:
    """Within it, a BatchNormalization runs as in training."""
    call = layer.call
    return replaced(layer, "call", lambda *args, **kwargs: call(*args, **{**kwargs, "training": True}))


def _kernels(model: keras.Model, target: float | None, only: Collection[str] | None) -> list[Scaled]:
    try:
        places = {id(place.kernel): place for place in kernel_places(model)}
    except ValueError:  # no graph
        places = {}
    names, normalized = layer_paths(model), _normalized(model)
    kernels = []
    for row in {id(row.layer): row for row in fans(model)}.values():  # the last of each layer
        place = places.get(id(row.kernel))
        path = place.path if place else names.get(id(row.layer), row.layer.path)
        wanted = target or (place.forward_scale**2 if place else 1.0)
        reason = normalized.get(id(row.layer), "") if row.kernel.trainable else "it is frozen"
        reason = reason if layer_kernels(row.layer) else "it is a recurrent cell's"
        kernels.append(Scaled(row.layer, row.kernel, path, wanted, reason))
    if not kernels:
        raise ValueError(f"No layer of {model.name!r} has a kernel that could be calibrated.")
    return kernels if only is None else _chosen(model, kernels, only)


def _chosen(model: keras.Model, kernels: list[Scaled], only: Collection[str]) -> list[Scaled]:
    names = {kernel.path: kernel for kernel in kernels}
    names |= {f"{each.path}/{row.kernel.name}": each for each in kernels for row in fans(each.layer)}
    unknown = set(only) - set(names) - {weight.path for weight in model.weights}
    if unknown:
        raise ValueError(f"{model.name!r} has no {', '.join(sorted(unknown))}; it has {', '.join(names)}.")
    chosen = [names[name] for name in only if name in names]
    return [kernel for kernel in kernels if kernel in chosen]


def _normalized(model: keras.Model) -> dict[int, str]:
    """The reason to leave a layer whose outputs all go to normalizations directly, by the layer's id."""
    try:
        graph = trace(model)
    except ValueError:
        return {}
    after: dict[int, list[Any]] = defaultdict(list, {tensor: [None] for tensor in graph.outputs})
    for call in graph.calls:
        for tensor in call.inputs:
            after[tensor].append(call.operation)
    following: dict[int, list[Any]] = defaultdict(list)  # over all calls of a layer
    for call in graph.calls:
        linear = getattr(call.operation, "activation", None) in (None, keras.activations.linear)
        following[id(call.operation)] += (
            [each for tensor in call.outputs for each in after[tensor]] if linear else [None]
        )
    return {
        layer: f"{nexts[0].name} undoes its scale"
        for layer, nexts in following.items()
        if all(map(_ignores_scale, nexts))
    }


def _ignores_scale(layer: Any) -> bool:
    if isinstance(layer, layers.BatchNormalization):
        return bool(layer.trainable)  # a frozen one divides by moving averages
    return isinstance(layer, _SCALE_INVARIANT)


def _row(kernel: Scaled) -> CalibratedKernel:
    unmoved = "within tolerance" if kernel.runs else "it did not run"
    return CalibratedKernel(
        path=kernel.path,
        kernel=kernel.variable.name,
        target=kernel.target,
        found=kernel.found,
        reached=kernel.reached,
        factor=kernel.factor,
        reason=kernel.reason or ("" if kernel.factor != 1 else unmoved),
    )
