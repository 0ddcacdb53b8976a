"""Rows, verdicts and the table of `measure_gains`."""

import dataclasses
import math

from keras_prelu.tables import text_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The limits at which a layer gets a verdict.

    `vanishing` and `exploding` limit three ratios of mean squares: the forward signal over that of the first layer, the
    gradient over that of the last layer, and the product of both, to which the kernel's gradient is proportional. With
    Xavier's forward variance 1/n, each ReLU layer halves the signal. The paper found that 22 such layers (a ratio of
    5e-7) learn, though later, and that 30 layers (2e-9) do not. Its 30-layer network with small initial dense layers
    has 4e-8 at conv1 and learns.

    Attributes:
        vanishing: The signal or the gradient vanishes at or below this fraction.
        exploding: One of them explodes at or above this multiple, or where it is not finite.
        dead: A layer has dead units where their fraction is above this one. A deep ReLU network makes all inputs look
            alike, so that one batch leaves many units dead: up to half of them in 30 well-started layers of width 128.
        stalled: A layer stalls where the norm of the loss's gradient is below this fraction of that of weight decay:
            the gradient is "modulated only by weight decay" (footnote 2). In 30 layers of width 128 the fraction is
            0.003 to 0.012 with Xavier's variance and above 90 with the right one. At the end of training it is near 1.
    """

    vanishing: float = 1e-8
    exploding: float = 1e6
    dead: float = 0.9
    stalled: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSignal:
    """The measurements at one layer with a kernel; NaN where there was nothing to measure.

    Attributes:
        name: The layer's path in the model.
        forward_mean_square: Mean square of its output y before any activation, over batch, positions and channels.
        forward_variance: Variance of the same values about their mean.
        forward_gain: The layer's `forward_mean_square` over that of the layer that ran before it.
        backward_mean_square: Mean square of the gradient with respect to y, over the same elements.
        backward_variance: Variance of that gradient about its mean.
        backward_gain: The layer's `backward_mean_square` over that of the layer that ran after it.
        gradient_mean_square: Mean square of the gradient with respect to the kernel.
        decay_ratio: Norm of that gradient over the norm of weight decay's; only where a loss was given.
        dead: Fraction of its units (channels) whose rectifier gave zero for the whole batch.
        one_sided: Fraction of its units whose rectifier had inputs on one side of zero only, and so was linear.
        verdicts: Any of `"vanishing"`, `"exploding"`, `"dead units"` and `"stalled"`; empty where all is well.
    """

    name: str
    forward_mean_square: float
    forward_variance: float
    forward_gain: float
    backward_mean_square: float
    backward_variance: float
    backward_gain: float
    gradient_mean_square: float
    decay_ratio: float
    dead: float
    one_sided: float
    verdicts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SignalReport:
    """The layers with a kernel, in the order in which they ran; `str()` of it is its table."""

    rows: tuple[LayerSignal, ...]

    @property
    def suspects(self) -> tuple[LayerSignal, ...]:
        """The layers with a bad verdict."""
        return tuple(row for row in self.rows if row.verdicts)

    def table(self) -> str:
        """The rows as aligned text."""
        header = ["layer", "forward", "gain", "backward", "gain", "dead", "one-sided", "gradient/decay", "verdict"]
        return text_table(
            header,
            [
                (
                    row.name,
                    row.forward_mean_square,
                    row.forward_gain,
                    row.backward_mean_square,
                    row.backward_gain,
                    row.dead,
                    row.one_sided,
                    row.decay_ratio,
                    ", ".join(row.verdicts) or "ok",
                )
                for row in self.rows
            ],
        )

    def __str__(self) -> str:
        return self.table()


def judge(row: LayerSignal, first: LayerSignal, last: LayerSignal, thresholds: Thresholds) -> LayerSignal:
    """The row with its verdicts, which compare it with the first and the last one."""
    forward = _fraction(row.forward_mean_square, first.forward_mean_square)
    backward = _fraction(row.backward_mean_square, last.backward_mean_square)
    # The kernel's gradient is of both: where each is small, it is smaller than either.
    fractions = (forward, backward, forward * backward)
    holds = {
        "vanishing": min(fractions) <= thresholds.vanishing,
        "exploding": max(fractions) >= thresholds.exploding or not all(map(math.isfinite, fractions)),
        "dead units": row.dead > thresholds.dead,
        "stalled": row.decay_ratio < thresholds.stalled,
    }
    return dataclasses.replace(row, verdicts=tuple(verdict for verdict, held in holds.items() if held))


def _fraction(value: float, origin: float) -> float:
    return value / origin if origin else 0.0
