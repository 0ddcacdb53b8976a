"""Fresh weights for a whole model, each kernel with the variance that fits what stands around it."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
from keras import layers, ops

from keras_prelu.initialization.initializers import DISTRIBUTIONS, draw
from keras_prelu.initialization.places import KernelPlace, kernel_places
from keras_prelu.initialization.tailor import Tailoring, tailor_slopes
from keras_prelu.tables import text_table
from keras_prelu.walk.graph import flatten_layers
from keras_prelu.walk.rules import keeps_its_weights
from keras_prelu.walk.signal import Obstacle

PAPER_STD = 0.01  # section 2.2: of the fully connected layers,
PAPER_LAST_STD = 0.001  # and of the last of them


@dataclass(frozen=True, kw_only=True)
class InitializedKernel:
    """What `initialize` gave to a kernel.

    Attributes:
        path: The path of the layer in the model.
        kernel: The variable's name.
        fan_in: How many inputs an output unit sums.
        fan_out: How many outputs an input unit feeds.
        negative_slope: The slope of the rectifier that counts: before the layer in mode `"fan_in"`, after it in mode
            `"fan_out"`; 1 without one. None for another function, and for what the paper sets without regard to it.
        activation: The name of the function that counts, where that is no rectifier.
        second_moment: m in `initialize`; None where the rule does not use it.
        scale: s in `initialize`; None where the rule does not use it.
        equation: The paper's equation, or section.
        standard_deviation: Of the distribution that the weights were drawn from.
    """

    path: str
    kernel: str
    fan_in: float
    fan_out: float
    negative_slope: float | None = None
    activation: str | None = None
    second_moment: float | None = None
    scale: float | None = None
    equation: str
    standard_deviation: float

    @property
    def cells(self) -> dict[str, object]:
        """The row of the report, by the head of its column."""
        return {
            "layer": self.path,
            "kernel": self.kernel,
            "fan_in": self.fan_in,
            "fan_out": self.fan_out,
            "slope": self.activation or self.negative_slope,
            "m": self.second_moment,
            "s": self.scale,
            "eq.": self.equation,
            "std": self.standard_deviation,
        }


@dataclass(frozen=True)
class Initialization:
    """What `initialize` did; as a string, a table.

    Attributes:
        kernels: The kernels that it set, in the order of the calls.
        unplaced: The weights that it left as they were, by path, and why.
        tailoring: The slope that the rectifiers got, and C(0) with it; None where `tailor` was not given.
    """

    kernels: tuple[InitializedKernel, ...]
    unplaced: dict[str, str]
    tailoring: Tailoring | None = None

    def __str__(self) -> str:
        rows = [row.cells for row in self.kernels]
        lines = [text_table(list(rows[0]), [list(row.values()) for row in rows])] if rows else []
        lines += [] if self.tailoring is None else [str(self.tailoring)]
        lines += [f"left as it was: {path} ({reason})" for path, reason in self.unplaced.items()]
        return "\n".join(lines)


def initialize(
    model: keras.Model,
    mode: str = "fan_in",
    distribution: str = "normal",
    seed: int | None = None,
    *,
    fully_connected: str = "variance",
    input_second_moment: float = 1.0,
    tailor: float | None = None,
) -> Initialization:
    """Draws every kernel of a model anew, with the variance that keeps its signals; sets the biases to 0.

    $$n \\, \\sigma^2 \\, m = s^2$$

    with m the second moment of what the layer sees where all layers give variance 1: (1 + a^2) / 2 behind a rectifier
    of negative slope a and 1 where there is none. After a sum of independent terms, it is the sum of their variances
    plus the square of the sum of their means, which are not 0 behind rectifiers. In mode `"fan_in"`, n is the fan_in
    and m that of the signal before the layer (equations 10 and 15). In mode `"fan_out"`, n is the fan_out and m that of
    the gradient after the layer (equations 14 and 15): the slope is that of the next rectifier.

    s is 1 but in residual sums y = x + f(x), of which there are L in the model: there, the last kernel of each branch
    (the first in mode `"fan_out"`) gets s = 1 / sqrt(L), and n parallel ones that are added up get 1 / sqrt(n L). The
    sums then at most double the signal's variance at any depth. Slopes of rectifiers and
    normalizations do not change. `kernel_places` lists the layers that do not change a signal, such as pooling.

    The paper trains its large models with mode `"fan_out"` and small deviations for the fully connected layers:
    `initialize(model, "fan_out", fully_connected="paper")`. Either mode suffices for a deep network. The default is
    `"fan_in"`, because without those small deviations the few outputs of a classifier would make for large weights
    in `"fan_out"`, and so for logits with a variance of inputs / classes.

    An activation f that is no rectifier counts by m = E[f^2], in mode `"fan_out"` by E[f'^2], both for a signal of
    variance 1 before it.

    Args:
        model: A built functional or Sequential model.
        mode: `"fan_in"` to keep the variance of the signal, `"fan_out"` that of the gradient.
        distribution: `"normal"`, `"truncated_normal"` (at two standard deviations) or `"uniform"`; all of the same
            variance.
        seed: Makes the weights repeatable: those of a kernel follow from it, the kernel's shape and the number of
            kernels of that shape before it. None draws from Keras's global generator.
        fully_connected: `"variance"` treats Dense layers as all others; `"paper"` gives them a standard deviation of
            0.01, and the last one 0.001.
        input_second_moment: The mean square of what the first layers see, in mode `"fan_in"`. 1 fits images scaled to
            unit variance, with n_1 Var[w_1] = 1; 0.5 is what the paper does "for simplicity" (equation 10 there too).
        tailor: C(0), how alike the network is to make two images that have nothing in common before it has learnt
            anything: from the graph follows the one slope that all PReLU and LeakyReLU layers get for it, 0 if even
            that leaves C(0) lower. Deep networks of ReLUs make all images look alike, which variances don't show:
            0.9 lets plain networks of a hundred layers learn. None keeps the slopes.

    Returns:
        A row for each kernel that was set, and the names of those that were not, with the reason: next to a layer whose
        effect on a signal is not known, within a recurrent layer or another one that is not known, or not trainable.

    Raises:
        ValueError: A model that is not built or has no graph, or an argument that is none of those above; with
            `tailor`, a model without slopes, or one that can't have that C(0).

    Examples:
        >>> from keras_prelu import PReLU
        >>> model = keras.Sequential([
        ...     keras.Input((16, 16, 3)),
        ...     keras.layers.Conv2D(64, 3, name="conv1"),
        ...     PReLU(0.25),
        ...     keras.layers.Conv2D(64, 3, name="conv2"),
        ...     PReLU(0.25),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(10, name="logits"),
        ... ])
        >>> print(initialize(model, seed=0))
        layer   kernel  fan_in  fan_out  slope      m  s  eq.     std
        conv1   kernel      27      576      1      1  1  15    0.192
        conv2   kernel     576      576   0.25  0.531  1  15   0.0572
        logits  kernel      64       10   0.25  0.531  1  15    0.171

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 2.2.
    """
    _check(mode, distribution, seed, fully_connected, input_second_moment)
    tailoring = None if tailor is None else tailor_slopes(model, tailor)
    places = kernel_places(model, input_second_moment)
    dense = [place.path for place in places if isinstance(place.layer, layers.Dense)]
    paper_stds = {path: PAPER_LAST_STD if path == dense[-1] else PAPER_STD for path in dense}
    kernels, unplaced = [], {}
    for place, kernel_seed in zip(places, _kernel_seeds(places, seed), strict=True):
        row = _describe(place, mode, paper_stds.get(place.path) if fully_connected == "paper" else None)
        if isinstance(row, InitializedKernel):
            _draw(place, row.standard_deviation, distribution, kernel_seed)
            kernels.append(row)
        else:
            unplaced[f"{place.path}/{place.kernel.name}"] = row
    unplaced |= dict.fromkeys(_other_weights(model, places), "unknown layer")
    return Initialization(tuple(kernels), unplaced, tailoring)


def _check(mode: str, distribution: str, seed: int | None, fully_connected: str, input_second_moment: float) -> None:
    for name, value, choices in [
        ("mode", mode, ("fan_in", "fan_out")),
        ("distribution", distribution, DISTRIBUTIONS),
        ("fully_connected", fully_connected, ("variance", "paper")),
    ]:
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, choices))}.")
    if seed is not None and not isinstance(seed, int):
        raise ValueError(f"seed is {seed!r}, but must be an integer or None.")
    if not 0 < input_second_moment < math.inf:
        raise ValueError(f"input_second_moment is {input_second_moment}, but must be positive and finite.")


def _describe(place: KernelPlace, mode: str, paper_std: float | None) -> InitializedKernel | str:
    """What a kernel is to get, or why it gets nothing."""
    signal, fan, scale = (
        (place.before, place.fan_in, place.forward_scale)
        if mode == "fan_in"
        else (place.after, place.fan_out, place.backward_scale)
    )
    named = {"path": place.path, "kernel": place.kernel.name, "fan_in": place.fan_in, "fan_out": place.fan_out}
    if not place.kernel.trainable:
        return "not trainable"
    if paper_std is not None:
        return InitializedKernel(**named, equation="2.2", standard_deviation=paper_std)
    if isinstance(signal, Obstacle):
        comma = "," if signal.reason else ""
        return f"not known what {signal}{comma} does to a signal"
    if signal.second_moment == 0:
        return "no signal arrives" if mode == "fan_in" else "no gradient arrives"
    general, plain = ("7", "10") if mode == "fan_in" else ("12", "14")
    equations = {None: general, 0.0: plain}
    return InitializedKernel(
        **named,
        negative_slope=signal.negative_slope,
        second_moment=signal.second_moment,
        scale=scale,
        activation=signal.activation.name if signal.activation is not None and signal.negative_slope is None else None,
        equation=equations.get(signal.negative_slope, "15"),
        standard_deviation=scale / math.sqrt(fan * signal.second_moment),
    )


def _kernel_seeds(places: Sequence[KernelPlace], seed: int | None) -> Iterator[int | None]:
    """A seed for each kernel from its shape and its number among those of that shape."""
    before: Counter[tuple[int, ...]] = Counter()
    for place in places:
        shape = tuple(place.kernel.shape)
        digest = hashlib.sha256(f"{seed} {shape} {before[shape]}".encode()).digest()
        before[shape] += 1
        yield None if seed is None else int.from_bytes(digest[:4]) >> 1  # Keras takes seeds of 31 bits


def _draw(place: KernelPlace, std: float, distribution: str, seed: int | None) -> None:
    kernel, bias = place.kernel, getattr(place.layer, "bias", None)
    kernel.assign(draw(kernel.shape, std, distribution, dtype=kernel.dtype, seed=seed))
    if bias is not None:
        bias.assign(ops.zeros(bias.shape, bias.dtype))


def _other_weights(model: keras.Model, places: Sequence[KernelPlace]) -> list[str]:
    """The paths of the trainable weights of layers that hold neither a kernel nor what is meant to stay."""
    known = [place.layer for place in places]
    known += [layer for layer in flatten_layers(model) if keeps_its_weights(layer)]
    weights = {id(weight) for layer in known for weight in layer.weights}
    return [weight.path for weight in model.trainable_variables if id(weight) not in weights]
