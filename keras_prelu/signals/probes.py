"""Probes that see what passes each layer of a running model."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_prelu.initialization.activations import negative_slope
from keras_prelu.initialization.fans import layer_kernels
from keras_prelu.initialization.graph import flatten_layers
from keras_prelu.keras_internals import replaced
from keras_prelu.layer.prelu import PReLU


@dataclasses.dataclass
class Moments:
    """Sums over all the values that passed, from which their mean square and variance follow."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """Takes values in, in float64."""
        values = values.astype("float64")
        self.count += values.size
        with np.errstate(invalid="ignore"):  # what has overflowed is to be reported
            self.total += float(values.sum())
            self.squares += float(np.square(values).sum())

    @property
    def mean_square(self) -> float:
        """The second moment about zero."""
        return self.squares / self.count if self.count else float("nan")

    @property
    def variance(self) -> float:
        """The second moment about the mean."""
        if not self.count:
            return float("nan")
        variance = self.mean_square - (self.total / self.count) ** 2
        return 0.0 if variance < 0 else variance  # by rounding

    @property
    def norm(self) -> float:
        """The root of the sum of squares."""
        return math.sqrt(self.squares) if self.count else float("nan")


@dataclasses.dataclass
class Units:
    """What each unit (a channel, of maps) of one rectifier did over the whole batch: a truth value each."""

    answered: np.ndarray  # its output was other than zero at least once
    above: np.ndarray  # its input was positive at least once
    below: np.ndarray  # its input was zero or negative at least once

    @property
    def dead(self) -> float:
        """The fraction that answered zero all the time."""
        return float(np.mean(~self.answered))

    @property
    def one_sided(self) -> float:
        """The fraction whose input kept to one side of zero."""
        return float(np.mean(~(self.above & self.below)))


@dataclasses.dataclass(eq=False)
class Probe:
    """What was seen at one layer with a kernel, over all its calls.

    The rectifiers that ran after it and before the next such layer count as its own.
    """

    layer: keras.Layer
    forward: Moments = dataclasses.field(default_factory=Moments)
    backward: Moments = dataclasses.field(default_factory=Moments)
    units: list[Units] = dataclasses.field(default_factory=list)
    kernels: Moments = dataclasses.field(default_factory=Moments)
    gradients: Moments = dataclasses.field(default_factory=Moments)  # of those kernels that are not frozen

    @property
    def dead(self) -> float:
        """The largest fraction of dead units of its rectifiers; not a number without any."""
        return max((units.dead for units in self.units), default=float("nan"))

    @property
    def one_sided(self) -> float:
        """Likewise of one-sided units."""
        return max((units.one_sided for units in self.units), default=float("nan"))


def run_forward(model: keras.Model, batch: Any, training: bool) -> tuple[list[Probe], Any]:
    """Runs a model and looks at every layer with a kernel and at every rectifier.

    Returns:
        The probes, in the order in which their layers first ran, and the model's outputs.
    """
    probes: dict[int, Probe] = {}
    latest: list[Probe] = []

    def see_preactivation(layer: keras.Layer, values: Any) -> Any:
        probe = probes.setdefault(id(layer), Probe(layer))
        probe.forward.add(to_array(values))
        latest[:] = [probe]
        return values

    def see_rectifier(layer: keras.Layer, inputs: Any, outputs: Any) -> None:
        for probe in latest:  # none, where a rectifier comes before every kernel
            probe.units.append(_units(layer, to_array(inputs), to_array(outputs)))

    if not model.built:
        model(batch)
    with state_kept(model), attached(model, see_preactivation, see_rectifier):
        outputs = model(batch, training=training)
    return list(probes.values()), outputs


@contextlib.contextmanager
def attached(
    model: keras.Model, see_preactivation: Callable[..., Any], see_rectifier: Callable[..., None] | None = None
) -> Iterator[None]:
    """Within it, what passes the model's layers passes through functions.

    Args:
        model: Any model; subclassed ones too, since it is the layers that are watched.
        see_preactivation: A function of a layer with a kernel and its output before any activation; what it returns
            goes on in place of that output.
        see_rectifier: A function of a rectifier, or a layer whose own activation is one, of its input and its output.
    """
    with contextlib.ExitStack() as stack:
        for layer in flatten_layers(model):
            replacement = _replacement(layer, see_preactivation, see_rectifier or _ignore)
            if replacement is not None:
                stack.enter_context(replaced(layer, *replacement))
        yield


def _ignore(*_: Any) -> None:
    pass


def _replacement(
    layer: keras.Layer, see_preactivation: Callable[..., Any], see_rectifier: Callable[..., None]
) -> tuple[str, Callable[..., Any]] | None:
    """Which method of a layer to replace by what, if any."""
    call: Callable[..., Any] = layer.call
    activation: Any = getattr(layer, "activation", None)

    def activation_seen(values: Any) -> Any:
        values = see_preactivation(layer, values)
        outputs = activation(values)
        if not isinstance(activation, keras.Layer) and _is_rectifier(activation):  # a layer is seen by itself
            see_rectifier(layer, values, outputs)
        return outputs

    def kernel_seen(*args: Any, **kwargs: Any) -> Any:
        return see_preactivation(layer, call(*args, **kwargs))

    def rectifier_seen(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        see_rectifier(layer, args[0] if args else kwargs["inputs"], outputs)
        return outputs

    if layer_kernels(layer):
        return ("call", kernel_seen) if activation is None else ("activation", activation_seen)
    return ("call", rectifier_seen) if _is_rectifier(layer) else None


def _is_rectifier(activation: Any) -> bool:
    # A learnt slope may be 1 for a while, which is else what tells a linear activation.
    return isinstance(activation, PReLU | keras.layers.PReLU) or negative_slope(activation) not in (None, 1.0)


@contextlib.contextmanager
def state_kept(model: keras.Model) -> Iterator[None]:
    """Puts back what a run changes: moving averages, and the seeds that dropout draws from."""
    state = [(variable, np.array(ops.convert_to_numpy(variable))) for variable in model.non_trainable_variables]
    try:
        yield
    finally:
        for variable, values in state:
            variable.assign(values)


def to_array(values: Any) -> np.ndarray:
    """Values of any floating dtype as a float32 array; NumPy knows no bfloat16."""
    return np.asarray(ops.convert_to_numpy(ops.cast(values, "float32")))


def _units(layer: keras.Layer, inputs: np.ndarray, outputs: np.ndarray) -> Units:
    data_format = getattr(layer, "data_format", None) or keras.config.image_data_format()
    channel_axis = 1 if data_format == "channels_first" else inputs.ndim - 1
    others = tuple(axis for axis in range(inputs.ndim) if axis != channel_axis)
    answered, above, below = (np.any(seen, others) for seen in (outputs != 0, inputs > 0, inputs <= 0))
    return Units(answered, above, below)
