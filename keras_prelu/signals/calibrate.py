"""Layer-sequential unit variance: kernels scaled, layer after layer, until a batch has the same size everywhere."""

import contextlib
import dataclasses
import math
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prelu.initialization.fans import fans, layer_kernels
from keras_prelu.initialization.graph import layer_paths, trace
from keras_prelu.initialization.places import kernel_places
from keras_prelu.keras_internals import flatten_layers, replaced
from keras_prelu.signals.scaling import Calibrator, Scaled
from keras_prelu.signals.watch import state_kept, watched
from keras_prelu.tables import text_table

# What follows one of these does not depend on the scale of its input. (`layers.Normalization` divides by constants.)
_SCALE_INVARIANT = (
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization),
    *(layers.RMSNormalization, layers.UnitNormalization),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibratedKernel:
    """What `calibrate` found at a kernel and did to it.

    Attributes:
        path: The path of the layer in the model.
        kernel: The variable's name; the last one of a layer that has several.
        target: The second moment that the layer's output was to have.
        found: The second moment before, with the kernels before it calibrated already; NaN where it was not measured.
        reached: The second moment after; equal to `found` where the kernel was left as it was.
        factor: The factor on the kernel; 1 where it was left as it was.
        reason: Why it was left as it was, or why the target was not reached; empty otherwise.
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
    """What `calibrate` did: a row per kernel, in the order in which the layers ran; `str()` of it is a table."""

    kernels: tuple[CalibratedKernel, ...]

    @property
    def moved(self) -> tuple[CalibratedKernel, ...]:
        """The kernels that were scaled."""
        return tuple(row for row in self.kernels if row.factor != 1)

    @property
    def left(self) -> tuple[CalibratedKernel, ...]:
        """The kernels that were left as they were, each with its reason."""
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

    with y = W x + b a layer's output before its activation, and m the target. Layer after layer is measured and scaled
    in the order in which they run, each on what the scaled layers before it make of the batch. `initialize` sets the
    same variance from the graph, without data; this one counts what no formula covers: a layer that it does not know,
    images whose neighbouring pixels are alike, padding. It works on any model, subclassed ones too.

    Only kernels are scaled, and the batch is the only data: biases stay as they are, which are 0 in a new model. A
    layer with several kernels has its last one scaled; a layer that is called several times, by the mean over its
    calls. Each layer runs once, and once more where its kernel is scaled; the whole model runs again only where a layer
    that is called several times has moved. Dropout and other noise are off, as at inference, but BatchNormalization
    uses the batch's statistics. So nothing is random. Moving averages and seeds stay as they are.

    These kernels are left as they are, and the report says why: those within `tolerance`; frozen ones; those with a
    normalization directly after them in the graph, for it would undo the scale; those whose output is zero or not
    finite; those of recurrent cells, whose signal runs through time; and those whose scale can't reach the target,
    because the bias alone is larger, or because the layer normalizes its kernel itself.

    Args:
        model: A model of any kind. One that is not built is built by the batch.
        batch: Its input, as for `model(batch)`; some hundred examples that are typical of the data.
        target: The second moment that each output is to have. None for 1, but 1 / L at the end of each of L residual
            branches: what `initialize` gives them.
        tolerance: The relative deviation from the target with which a kernel is left as it is.
        max_iterations: How often a kernel is scaled, at most. Without a bias, once is enough.
        only: The kernels to scale, by their layers' paths or as the keys of `initialize(model).unplaced`; None for all.

    Returns:
        The kernels, with the factors of those that were moved and the reasons of those that were left.

    Raises:
        ValueError: An argument outside its range; a batch that is empty, not finite or of another shape than the input;
            a model without a kernel; a name in `only` that the model does not have.

    Example:
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
    rows = fans(model)
    last = {id(row.layer): row for row in rows}
    kernels = []
    for row in rows:
        recurrent = not layer_kernels(row.layer)
        if row is not last[id(row.layer)] and not recurrent:
            continue
        place = places.get(id(row.kernel))
        path = place.path if place else names.get(id(row.layer), row.layer.path)
        wanted = target or (place.forward_scale**2 if place else 1.0)
        reason = normalized.get(id(row.layer), "") if row.kernel.trainable else "it is frozen"
        kernels.append(Scaled(row.layer, row.kernel, path, wanted, "it is a recurrent cell's" if recurrent else reason))
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
