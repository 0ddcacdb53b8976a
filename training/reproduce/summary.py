"""One picture of three findings: initial weights, errors, and learnt slopes."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from training.reproduce import init, rectifiers, slopes
from training.reproduce.curves import draw_band, draw_guess
from training.reproduce.figures import BLUE, GREEN, ORANGE, VERMILION, finished, new_figure, tidy
from training.reproduce.pairs import final_error
from training.reproduce.trial import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STUDIES = ("init", "rectifiers")
"""The studies whose records the picture needs."""


def draw(records: Mapping[str, Sequence[Record]]) -> "Figure":
    """Draws the picture of the records of each study."""
    figure = new_figure(9.6, 3.1)
    panels = figure.subplots(1, 3, width_ratios=(1, 0.8, 1.25))
    _draw_training(panels[0], records["init"], {"Xavier": VERMILION, "He": BLUE})
    _draw_errors(panels[1], records["rectifiers"], {"relu": VERMILION, "prelu": BLUE})
    _draw_slopes(panels[2], records["rectifiers"])
    for axes in panels:
        axes.title.set_fontsize(10)
        tidy(axes)
    return figure


def _draw_training(axes: "Axes", records: Sequence[Record], colours: Mapping[str, str]) -> None:
    for rule, name, place in (("xavier", "Xavier", (1.0, 86)), ("he_forward", "He", (1.0, 58))):
        runs = finished(init.of(records, 30, "prelu", rule))
        draw_band(axes, [init.errors(record) for record in runs], colours[name])
        axes.annotate(name, place, color=colours[name])
    draw_guess(axes, 90, init.RECIPE["epochs"])
    axes.set(title="30 layers, CIFAR-10, two epochs", xlabel="epochs", ylabel="test error, %", ylim=(50, 95))


def _draw_errors(axes: "Axes", records: Sequence[Record], colours: Mapping[str, str]) -> None:
    for place, (rectifier, colour) in enumerate(colours.items()):
        errors = [final_error(record) for record in finished(rectifiers.of(records, "cifar10", rectifier))]
        axes.plot([place] * len(errors), errors, "o", color=colour, alpha=0.7)
        mean = statistics.mean(errors)
        axes.annotate(f"{mean:.1f} %", (place, mean), xytext=(12, -3), textcoords="offset points", color=colour)
    axes.set_xticks((0, 1), ("ReLU", "PReLU"))
    axes.set(title="14 layers, CIFAR-10, five seeds", ylabel="test error, %", xlim=(-0.4, 1.7), ylim=(20, 36))


def _draw_slopes(axes: "Axes", records: Sequence[Record]) -> None:
    runs = rectifiers.of(records, "cifar10", "prelu")
    axes.plot(slopes.LAYERS, slopes.PAPER["prelu"], "D--", color=ORANGE, markersize=4, linewidth=1)
    slopes.draw_layers(axes, runs, GREEN, "", 0)
    axes.axhline(slopes.START, color="#888888", linewidth=1, linestyle=":")
    axes.annotate("here, CIFAR-10", (8.6, 0.36), color=GREEN)
    axes.annotate("the paper, ImageNet", (4.3, 0.47), color=ORANGE)
    axes.set_xticks(
        range(len(slopes.LAYERS)), slopes.LAYERS, rotation=60, ha="right", rotation_mode="anchor", fontsize=8
    )
    axes.set(title="learnt slopes by layer", ylabel="slope", ylim=(0, 0.65))
