"""Curves of trainings: figures of them for tables, and lines with bands over seeds for plots."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from training.reproduce.figures import NONE, finished, mean_and_std
from training.reproduce.trial import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = dict[float, float]

LEARNT = 2.2  # a loss below that of any guess among ten classes, log(10)


def curve(record: Record, event: str, field: str) -> Curve:
    """A figure that a run logged, by step."""
    return {each["step"]: float(each[field]) for each in record["events"] if each["event"] == event}


def smooth(values: Curve, points: int) -> Curve:
    """Takes the mean of each point and of the points before it, `points` in all or as many as there are."""
    figures = list(values.values())
    return {x: statistics.mean(figures[max(0, end - points) : end]) for end, x in enumerate(values, start=1)}


def final_loss(record: Record) -> float:
    """The mean of the training losses that were logged in the last tenth of the steps."""
    losses = curve(record, "train", "loss")
    return statistics.mean(loss for step, loss in losses.items() if step > 0.9 * max(losses))


def steps_to_learn(record: Record) -> float:
    """The first logged step whose batch has a loss below 2.2; infinite without one."""
    losses = curve(record, "train", "loss")
    return next((step for step, loss in losses.items() if loss < LEARNT), math.inf)


def cell(records: Sequence[Record], figure: Callable[[Record], float], digits: int, *, infinite: str = "never") -> str:
    """Writes a figure of several runs as `12.3 ± 0.4`, or as `12.3` if all have it, followed by the runs without one.

    Args:
        records: Of runs that differ in their seed.
        figure: Takes the figure of a run that did not fail.
        digits: Shown after the point.
        infinite: The word for a figure that is infinite.

    Returns:
        For example `never`, if the figure of all runs is infinite, or `12.3 (1 never) (1 failed)`.
    """
    values = [figure(record) for record in finished(records)]
    finite = [value for value in values if math.isfinite(value)]
    distinct = finite if len(set(finite)) > 1 else finite[:1]
    parts = [mean_and_std(distinct, digits)] if finite else []
    for word, number in ((infinite, len(values) - len(finite)), ("failed", len(records) - len(values))):
        if number:
            parts.append(word if number == len(records) else f"({number} {word})")
    return " ".join(parts) or NONE


def failures(records: Iterable[Record]) -> str:
    """A line for each run that failed, with its reason."""
    return "".join(f"\n`{each['trial']}` failed: {each['failed']}\n" for each in records if "failed" in each)


def draw_band(axes: "Axes", curves: Sequence[Curve], color: str, **look: Any) -> None:
    """Draws the mean of the curves of several seeds as a line, and a band from the lowest to the highest."""
    if not curves:
        return
    places = [x for x in curves[0] if all(x in each for each in curves)]
    columns = [[each[x] for each in curves] for x in places]
    axes.fill_between(places, [*map(min, columns)], [*map(max, columns)], color=color, alpha=0.2, linewidth=0)
    axes.plot(places, [*map(statistics.mean, columns)], color=color, **look)


def draw_guess(axes: "Axes", y: float, end: float) -> None:
    """Draws what a guess gives from 0 to the end of training, with room for its name."""
    axes.plot((0, end), (y, y), color="#777777", linewidth=0.9, linestyle=":")
    axes.annotate(
        "a guess", (end, y), xytext=(0, 2), textcoords="offset points", ha="right", color="#777777", fontsize=8
    )
