"""The plots of a report."""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_prelu.signals.plots import BLUE, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Events = Sequence[Mapping[str, Any]]


def plot_loss(events: Events) -> "Figure":
    """Plots the loss of training batches and of the evaluated split over steps, on a logarithmic scale."""
    figure, axes = _axes("step", "loss, nats")
    train, evaluated = _column(events, "train", "loss"), _column(events, "evaluation", "loss")
    axes.plot(*train, color=GREY, linewidth=0.8, label="training batches")
    axes.plot(*evaluated, "o-", color=BLUE, markersize=4, label="evaluations")
    if min([*train[1], *evaluated[1]], default=0) > 0:
        axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure


def plot_error(events: Events, published: Mapping[str, float]) -> "Figure":
    """Plots the evaluations' error over steps, in percent, beside published errors by name."""
    figure, axes = _axes("step", "error, %")
    steps, accuracies = _column(events, "evaluation", "accuracy")
    axes.plot(steps, [100 * (1 - accuracy) for accuracy in accuracies], "o-", color=BLUE, markersize=4)
    for style, (name, error) in zip(itertools.cycle(("--", ":", "-.")), published.items(), strict=False):
        axes.axhline(error, color=VERMILION, linewidth=1, linestyle=style, label=f"{name}, {error:g}")
    if published:
        axes.legend(frameon=False)
    axes.set_ylim(bottom=0)
    return figure


def plot_rate(events: Events) -> "Figure":
    """Plots the learning rate over steps."""
    figure, axes = _axes("step", "learning rate")
    axes.plot(*_column(events, "train", "learning_rate"), color=BLUE)
    axes.set_ylim(bottom=0)
    return figure


def plot_calibration(bins: Sequence[tuple[int, float, float]]) -> "Figure":
    """Plots the share of right images over the largest score; `bins` are those of `Metrics`."""
    figure, axes = _axes("largest score", "share right")
    counts, scores, right = zip(*bins, strict=True)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    axes.scatter(scores, right, [20 + 180 * count / max(counts) for count in counts], color=BLUE, alpha=0.8)
    return figure


def data_url(figure: "Figure") -> str:
    """A figure as the source of an `<img>` element, an SVG."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def _axes(across: str, up: str) -> tuple["Figure", Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    return figure, axes


def _column(events: Events, kind: str, field: str) -> tuple[list[int], list[float]]:
    rows = [event for event in events if event["event"] == kind]
    return [event["step"] for event in rows], [event[field] for event in rows]
