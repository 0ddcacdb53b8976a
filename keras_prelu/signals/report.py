"""What was measured at each layer, the verdict on it, and the table of both."""

import dataclasses
import math

from keras_prelu.tables import text_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where a verdict begins.

    The first two are for mean squares: the forward signal's as a fraction of the first layer's, the gradient's as one
    of the last layer's, and the product of both, by which the gradient of the kernel goes. A ReLU layer of Xavier's
    forward variance 1/n halves them: the paper found 22 layers, 5e-7, to learn, if later, and 30 layers, 2e-9, not. Its
    own 30-layer network, whose dense layers start small on purpose, has 4e-8 at conv1 and learns.

    Attributes:
        vanishing: The signal or the gradient vanishes at or below this fraction.
        exploding: One of them explodes at or above this multiple, or where it is not finite.
        dead: Above this fraction of dead units a layer is called so. In deep networks of ReLU all inputs come to look
            alike, and many units are dead to any one batch: up to half, in 30 layers of width 128 that start well.
        stalled: A layer stalls where the norm of the loss's gradient is below this fraction of the weight decay's, and
            so "modulated only by weight decay" (footnote 2). At 30 layers of width 128 it is 0.003 to 0.012 with
            Xavier's, more than 90 with the right variance; at the end of training the two balance.
    """

    vanishing: float = 1e-8
    exploding: float = 1e6
    dead: float = 0.9
    stalled: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSignal:
    """What was measured at one layer with a kernel; not a number (NaN) where there was nothing to measure.

    Attributes:
        name: The layer's path in the model.
        forward_mean_square: Mean square of its output y before any activation, over batch, positions and channels.
        forward_variance: Variance of the same values about their mean.
        forward_gain: Its `forward_mean_square` over that of the layer which ran before it.
        backward_mean_square: Mean square of the gradient with respect to y, over the same elements.
        backward_variance: Variance of that gradient about its mean.
        backward_gain: Its `backward_mean_square` over that of the layer which ran after it.
        gradient_mean_square: Mean square of the gradient with respect to the kernel.
        decay_ratio: Norm of that gradient over the norm of weight decay's; only where a loss was given.
        dead: Fraction of its units (channels, of maps) whose rectifier answered zero to the whole batch.
        one_sided: Fraction whose rectifier saw one side of zero only, and so was linear on this batch.
        verdicts: Those of `"vanishing"`, `"exploding"`, `"dead units"` and `"stalled"` that hold; none: all is well.
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
