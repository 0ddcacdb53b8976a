"""Plots of signals and slopes over depth, with matplotlib."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_prelu.extras import needing
from keras_prelu.signals.predict import GainReport
from keras_prelu.signals.report import SignalReport
from keras_prelu.signals.slope_table import SlopeTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Blue and vermilion of Okabe and Ito's palette, which colour-blind readers can distinguish; the markers differ too.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#666666"


def plot_gains(report: SignalReport, prediction: GainReport | None = None) -> "Figure":
    """Draws the mean squares of signal and gradient over depth, on a logarithmic scale.

    Args:
        report: The result of `measure_gains`.
        prediction: The result of `predict_gains`, to draw beside the measurement; None draws none. It is scaled to
            equal the measured signal at the first layer and the measured gradient at the last.

    Returns:
        A figure: `figure.savefig("gains.png")` writes it, notebooks show it. Layers with a bad verdict are crossed.

    Raises:
        ValueError: A prediction for layers of other names.
        ImportError: matplotlib is not installed; the extra `plots` brings it.
    """
    names = [row.name for row in report.rows]
    predicted = {row.name: row for row in prediction.rows} if prediction else {}
    if prediction and not set(names) & set(predicted):
        raise ValueError(f"The prediction is for {', '.join(predicted)}, the report for {', '.join(names)}.")
    bad = [index for index, row in enumerate(report.rows) if row.verdicts]
    figure = _figure(len(names), rows=2)
    forward, backward = figure.subplots(2, 1, sharex=True)
    for axes, quantity, origin in ((forward, "forward_mean_square", 0), (backward, "backward_mean_square", -1)):
        measured = [getattr(row, quantity) for row in report.rows]
        axes.plot(measured, "o-", color=BLUE, markersize=4, label="measured")
        expected = [getattr(predicted.get(name), quantity, math.nan) for name in names]
        scaled = [measured[origin] * value / (expected[origin] or math.nan) for value in expected]
        if prediction:
            axes.plot(scaled, "s--", color=VERMILION, markersize=6, markerfacecolor="none", label="predicted")
        if bad:
            bottom = axes.get_xaxis_transform()  # x in layers, y from 0 at the bottom to 1
            axes.plot(bad, [0.04] * len(bad), "x", color="black", transform=bottom, label="bad verdict")
        _logarithmic(axes, [*measured, *scaled])
    forward.set_ylabel("signal, mean square")
    backward.set_ylabel("gradient, mean square")
    forward.legend(frameon=False)
    _name_layers(backward, names)
    return figure


def plot_slopes(table: SlopeTable) -> "Figure":
    """Draws the mean of each rectifier's slopes over depth, with bars from the smallest to the largest.

    Args:
        table: The result of `slope_table`.

    Returns:
        A figure, as from `plot_gains`.

    Raises:
        ValueError: A table without rows.
        ImportError: matplotlib is not installed; the extra `plots` brings it.
    """
    if not table.rows:
        raise ValueError("The table is empty: the model has no rectifiers with learnt slopes.")
    means = [row.mean for row in table.rows]
    below = [row.mean - row.minimum for row in table.rows]
    above = [row.maximum - row.mean for row in table.rows]
    figure = _figure(len(means), rows=1)
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.errorbar(range(len(means)), means, yerr=[below, above], fmt="o", color=BLUE, capsize=3)
    axes.set_ylabel("slope: mean, minimum to maximum")
    _name_layers(axes, [row.layer or row.rectifier for row in table.rows])
    return figure


def _figure(num_layers: int, rows: int) -> "Figure":
    with needing("plots"):
        from matplotlib.figure import Figure  # not pyplot, which would choose a window system and keep every figure

    return Figure(figsize=(max(5.0, 2 + 0.22 * num_layers), 1 + 2.4 * rows), layout="constrained", dpi=150)


def _logarithmic(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis of at least two decades, so that random variation does not look like a trend."""
    exponents = [math.log10(value) for value in values if 0 < value < math.inf]
    axes.set_yscale("log", nonpositive="mask")
    if exponents:
        middle, half = (max(exponents) + min(exponents)) / 2, (max(exponents) - min(exponents)) / 2
        half = max(1.0, 1.25 * half)
        axes.set_ylim(10 ** (middle - half), 10 ** (middle + half))


def _name_layers(axes: Any, names: Sequence[str]) -> None:
    upright = sum(map(len, names)) > 45
    axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
    for each in axes.figure.axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        each.set_axisbelow(True)
