"""Initial weights whose variance fits the rectifier that follows."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_prelu")
class HeNormal(keras.initializers.VarianceScaling):
    """Draws weights that keep a signal's variance through rectifiers of any negative slope.

    $$w \\sim N(0, \\sigma^2), \\qquad \\tfrac{1}{2} (1 + a^2) \\, n \\, \\sigma^2 = 1$$

    with a the slope and n the fan: the number of inputs of an output unit (`"fan_in"`, keeps the forward signal) or
    of outputs of an input unit (`"fan_out"`, keeps the gradient; what the paper trains its large models with).
    The normal distribution is not truncated. Slope 0 is ReLU, 1 a linear layer.

    In place of `keras.initializers.HeNormal(seed)`, two things differ: that one truncates at two standard deviations,
    and its unseeded instances give two layers of one shape the same weights; here each call draws anew.

    Args:
        seed: Integer or `keras.random.SeedGenerator`. None draws from Keras's global generator, which
            `keras.utils.set_random_seed` seeds.
        negative_slope: The rectifier's slope for negative inputs. In mode `"fan_in"` that of the rectifier before the
            layer, in mode `"fan_out"` that of the one after it; in most networks they are the same.
        mode: `"fan_in"` (equation 10) or `"fan_out"` (equation 14).
        input_axes: The kernel's input axes; `EinsumDense` and attention layers fill them in.
        output_axes: The kernel's output axes; likewise.

    Raises:
        ValueError: A mode that is not one of the two.

    Example:
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
        negative_slope: float = 0.0,
        mode: str = "fan_in",
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        if mode not in ("fan_in", "fan_out"):
            raise ValueError(f'mode is {mode!r}, but must be "fan_in" or "fan_out".')
        super().__init__(
            scale=2.0 / (1.0 + negative_slope**2),
            mode=mode,
            distribution="untruncated_normal",
            seed=seed,
            input_axes=input_axes,
            output_axes=output_axes,
        )
        self.negative_slope = negative_slope
        if seed is None:
            self.seed = None  # the base class fixes one here, and would draw the same weights at every call

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config: dict[str, Any] = super().get_config()
        del config["scale"], config["distribution"]
        return {**config, "negative_slope": self.negative_slope}
