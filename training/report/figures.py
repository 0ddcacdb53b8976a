"""A run's pictures, as SVG that takes its colours from the page, so that they show on light and on dark."""

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_prelu.signals.plots import BLUE, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What stands for a colour in the page's style.
_COLOURS = {"#000000": "currentColor", "#DDDDDD": "var(--line)", GREY: "var(--soft)", BLUE: "var(--plot)"}

Events = Sequence[Mapping[str, Any]]


def plot_loss(events: Events) -> "Figure":
    """Draws the loss of training batches and of the test split, over steps, on a logarithmic scale."""
    figure, axes = _axes("step", "loss, nats")
    train, test = _column(events, "train", "loss"), _column(events, "evaluation", "loss")
    axes.plot(*train, color=GREY, linewidth=0.8, label="training batches")
    axes.plot(*test, "o-", color=BLUE, markersize=4, label="test")
    if min([*train[1], *test[1]], default=0) > 0:
        axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure


def plot_error(events: Events, published: Mapping[str, float]) -> "Figure":
    """Draws the test error over steps, in percent, beside published ones.

    Args:
        events: Lines of `metrics.jsonl`.
        published: Names and top-1 errors in percent.
    """
    figure, axes = _axes("step", "test error, %")
    steps, accuracies = _column(events, "evaluation", "accuracy")
    axes.plot(steps, [100 * (1 - accuracy) for accuracy in accuracies], "o-", color=BLUE, markersize=4)
    for style, (name, error) in zip(itertools.cycle(("--", ":", "-.")), published.items(), strict=False):
        axes.axhline(error, color=VERMILION, linewidth=1, linestyle=style, label=f"{name}, {error:g}")
    if published:
        axes.legend(frameon=False)
    axes.set_ylim(bottom=0)
    return figure


def plot_rate(events: Events) -> "Figure":
    """Draws the learning rate over steps."""
    figure, axes = _axes("step", "learning rate")
    axes.plot(*_column(events, "train", "learning_rate"), color=BLUE)
    axes.set_ylim(bottom=0)
    return figure


def plot_calibration(bins: Sequence[tuple[int, float, float]]) -> "Figure":
    """Draws how often the largest score is right over what it says, a point a bin; the diagonal is the truth.

    Args:
        bins: As `training.evaluation.scores.Judgement` has them.
    """
    figure, axes = _axes("largest score", "share right")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    most = max(count for count, _, _ in bins)
    axes.scatter(
        [score for _, score, _ in bins],
        [right for _, _, right in bins],
        [20 + 180 * count / most for count, _, _ in bins],
        color=BLUE,
        alpha=0.8,
    )
    return figure


def as_svg(figure: "Figure", name: str) -> str:
    """A figure as an `<svg>` element whose black, greys and blue are those of the page's style.

    Args:
        figure: Of matplotlib.
        name: Another one for each figure of a page, for its ids are made of it.
    """
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, of_page in _COLOURS.items():
        svg = re.sub(colour, of_page, svg, flags=re.IGNORECASE)
    return re.sub(r'( id="|href="#|url\(#)', rf"\1{name}-", svg)


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
