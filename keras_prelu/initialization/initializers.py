"""Initial weights whose variance fits the rectifiers around them."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_prelu.keras_internals import AxesAwareInitializer
from keras_prelu.walk.activations import activation_of
from keras_prelu.walk.fans import compute_fans, fans_over_axes
from keras_prelu.walk.signal import Signal

DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")
MODES = ("fan_in", "fan_out", "fan_avg")

# Standard deviation of a standard normal distribution cut off at two of its own.
_TRUNCATED_STD = 0.87962566103423978


def draw(shape: Sequence[int], std: float, distribution: str = "normal", *, dtype: Any = None, seed: Any = None) -> Any:
    """Draws numbers of mean 0 and a given standard deviation.

    Args:
        shape: How many.
        std: The standard deviation; that after the truncation, if there is one.
        distribution: `"normal"`, `"truncated_normal"` (at two standard deviations of the whole normal distribution)
            or `"uniform"`.
        dtype: Their dtype; None for Keras's default.
        seed: Integer, `keras.random.SeedGenerator`, or None for Keras's global generator.

    Returns:
        A tensor.

    Examples:
        >>> import numpy as np
        >>> bool(np.max(np.abs(draw((1000,), 1.0, "truncated_normal", seed=0))) <= 2 / 0.8796)
        True
    """
    if distribution == "uniform":
        limit = math.sqrt(3.0) * std
        return keras.random.uniform(shape, -limit, limit, dtype=dtype, seed=seed)
    if distribution == "truncated_normal":
        return keras.random.truncated_normal(shape, stddev=std / _TRUNCATED_STD, dtype=dtype, seed=seed)
    return keras.random.normal(shape, stddev=std, dtype=dtype, seed=seed)


class _He(AxesAwareInitializer):
    """Uniform weights of variance 2 / ((1 + a^2) n)."""

    def __init__(
        self,
        seed: Any = None,
        *,
        negative_slope: float | None = None,
        activation: Any = None,
        mode: str = "fan_in",
        kernel: str | None = None,
        groups: int = 1,
        strides: int | Sequence[int] = 1,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}, but must be one of {', '.join(map(repr, MODES))}.")
        if negative_slope is not None and activation is not None:
            raise ValueError(f"negative_slope={negative_slope} and activation={activation!r} both say what f is.")
        slope = 0.0 if negative_slope is None else negative_slope
        if not math.isfinite(slope):
            raise ValueError(f"negative_slope is {slope}, but must be a finite number.")
        super().__init__(
            scale=2.0 / (1.0 + slope * slope) if activation is None else _scale(activation, mode),
            mode=mode,
            distribution="uniform",
            seed=seed,
            input_axes=input_axes,
            output_axes=output_axes,
        )
        self.negative_slope = negative_slope
        self.activation = None if activation is None else keras.activations.get(activation)
        self.kernel = kernel
        self.groups = groups
        self.strides = strides

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel."""
        return draw(shape, self.standard_deviation(shape), self.distribution, dtype=dtype, seed=self.seed)

    def standard_deviation(self, shape: Sequence[int]) -> float:
        """The standard deviation of the weights of a kernel of this shape."""
        if self.input_axes is not None and self.output_axes is not None:
            fan_in, fan_out = fans_over_axes(shape, self.input_axes, self.output_axes)
        else:
            fan_in, fan_out = compute_fans(shape, self.kernel, groups=self.groups, strides=self.strides)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return math.sqrt(self.scale / n)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config: dict[str, Any] = super().get_config()
        del config["scale"], config["distribution"]
        return {
            **config,
            "negative_slope": self.negative_slope,
            "activation": None if self.activation is None else keras.activations.serialize(self.activation),
            "kernel": self.kernel,
            "groups": self.groups,
            "strides": self.strides,
        }


def _scale(activation: Any, mode: str) -> float:
    """1 / E[f^2], or 1 / E[f'^2] where the outputs are counted, for a signal of variance 1 before f."""
    function = activation_of(activation)
    if isinstance(function, str):
        raise ValueError(f"activation is {activation!r}, which {function}: it has no gain.")
    if function is None:
        return 1.0
    unit = Signal.noise()
    square = float(function.derivative(unit)[0][0]) if mode == "fan_out" else function.forward(unit).second_moment
    if square <= 0:
        raise ValueError(f"activation is {activation!r}, which is 0 everywhere: no weights keep a signal through it.")
    return 1 / square


@keras.saving.register_keras_serializable(package="keras_prelu")
class HeNormal(_He):
    """Draws weights that keep a signal's variance through rectifiers of any negative slope.

    $$w \\sim N(0, \\sigma^2), \\qquad \\tfrac{1}{2} (1 + a^2) \\, n \\, \\sigma^2 = 1$$

    Here, a is the slope (0 for ReLU, 1 for a linear layer) and n the fan: the number of inputs of an output unit
    (`"fan_in"`, keeps the forward signal), or of outputs of an input unit (`"fan_out"`, keeps the gradient; the paper
    trains its large models with it), or their mean (`"fan_avg"`).

    It differs from `keras.initializers.HeNormal(seed)` in two ways. Keras's truncates at two standard deviations, and
    its unseeded instances give two layers of one shape the same weights; this one draws anew at each call.

    An initializer sees only the kernel's shape. Three kinds of layers need arguments:

    | layer | arguments |
    |---|---|
    | depthwise convolutions, `depthwise_initializer` of separable ones | `kernel="depthwise"` |
    | transposed convolutions | `kernel="transposed", strides=...` as in the layer |
    | `keras.layers.Embedding` | `kernel="embedding"` |

    Grouped convolutions need `groups=...` in the modes that count the outputs. `keras_prelu.initialize` needs none of
    these arguments, since it sees the layers.

    Args:
        seed: Integer or `keras.random.SeedGenerator`. None draws from Keras's global generator, which
            `keras.utils.set_random_seed` seeds.
        negative_slope: The rectifier's slope for negative inputs; 0 unless there is an `activation`. In mode
            `"fan_in"` that of the rectifier before the layer, in mode `"fan_out"` that of the one after it; in most
            networks they are the same.
        activation: Any other elementwise function f in the rectifier's place, as a name, a layer or a function: the
            variance is 1 / (n E[f^2]), or in mode `"fan_out"` 1 / (n E[f'^2]), for a signal of variance 1 before f.
        mode: `"fan_in"` (equation 10), `"fan_out"` (equation 14) or `"fan_avg"`.
        distribution: `"normal"` as in the paper, or `"truncated_normal"` at two standard deviations as in Keras, of
            the same variance.
        kernel: The kind of kernel, where the table above has one: `"depthwise"`, `"transposed"` or `"embedding"`.
        groups: The number of groups of a convolution.
        strides: The strides of a transposed convolution.
        input_axes: The kernel's input axes; `EinsumDense` and attention layers set them.
        output_axes: The kernel's output axes; these layers set them too.

    Raises:
        ValueError: An unknown mode or distribution, a slope that is not finite, or an activation that is not
            elementwise; when called, a shape that does not fit the arguments or has a fan of 0.

    Examples:
        >>> import numpy as np
        >>> weights = HeNormal(seed=1, negative_slope=0.25)((3, 3, 64, 128))
        >>> closed_form = np.sqrt(2 / (1 + 0.25**2) / (3 * 3 * 64))
        >>> bool(abs(np.std(weights) / closed_form - 1) < 0.01)
        True

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, equations 10, 14 and 15.
    """

    def __init__(
        self,
        seed: Any = None,
        *,
        negative_slope: float | None = None,
        activation: Any = None,
        mode: str = "fan_in",
        distribution: str = "normal",
        kernel: str | None = None,
        groups: int = 1,
        strides: int | Sequence[int] = 1,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        if distribution not in ("normal", "truncated_normal"):
            raise ValueError(f'distribution is {distribution!r}, but must be "normal" or "truncated_normal".')
        super().__init__(
            seed,
            negative_slope=negative_slope,
            activation=activation,
            mode=mode,
            kernel=kernel,
            groups=groups,
            strides=strides,
            input_axes=input_axes,
            output_axes=output_axes,
        )
        self.distribution = distribution  # the base class means a truncated one by "normal"

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "distribution": self.distribution}


@keras.saving.register_keras_serializable(package="keras_prelu")
class HeUniform(_He):
    """Draws weights as `HeNormal` does, of the same variance, from a uniform distribution.

    $$w \\sim U(-\\sqrt 3 \\sigma, \\sqrt 3 \\sigma), \\qquad \\tfrac{1}{2} (1 + a^2) \\, n \\, \\sigma^2 = 1$$

    Args:
        seed: As in `HeNormal`, and so are `negative_slope`, `activation`, `mode`, `kernel`, `groups`, `strides`,
            `input_axes` and `output_axes`.

    Raises:
        ValueError: As in `HeNormal`.

    Examples:
        >>> import numpy as np
        >>> weights = HeUniform(seed=1, negative_slope=1.0)((300, 200))
        >>> bool(np.max(np.abs(weights)) <= np.sqrt(3 / 300))
        True

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, equations 10, 14 and 15: they set the variance only.
    """
