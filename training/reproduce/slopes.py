"""Table 1: the slopes that were learnt, layer by layer."""

import itertools
import statistics
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from training.reproduce import rectifiers
from training.reproduce.figures import BLUE, NONE, VERMILION, cost_table, finished, markdown, new_figure, tidy
from training.reproduce.pairs import mean_of_runs
from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RECTIFIERS = ("prelu_shared", "prelu")
COLOURS = {"cifar10": BLUE, "fashion_mnist": VERMILION}
START = 0.25
_CONVOLUTIONS = (*(f"conv2_{index}" for index in range(1, 5)), *(f"conv3_{index}" for index in range(1, 7)))
LAYERS = ("conv1", *_CONVOLUTIONS, "fc1", "fc2")
PAPER: dict[str, tuple[float, ...]] = {  # Table 1
    "prelu_shared": (0.681, 0.103, 0.099, 0.228, 0.561, 0.126, 0.089, 0.124, 0.062, 0.008, 0.210, 0.063, 0.031),
    "prelu": (0.596, 0.321, 0.204, 0.294, 0.464, 0.196, 0.152, 0.145, 0.124, 0.134, 0.198, 0.074, 0.075),
}


def trials() -> list[Trial]:
    """Those of `rectifiers` that learn slopes."""
    every = itertools.product(rectifiers.DATA, rectifiers.SEEDS, RECTIFIERS)
    return [rectifiers.trial(dataset, rectifier, seed) for dataset, seed, rectifier in every]


def tables(records: Sequence[Record]) -> dict[str, str]:
    """`slopes` is Table 1, `ranks` says in figures whether they are large in conv1 and fall with depth."""
    return {"slopes": _slopes(records), "ranks": _ranks(records), "cost": cost_table(records)}


def slope_of(record: Record, layer: str) -> float:
    """The mean slope behind a layer."""
    return next(float(row["mean"]) for row in record["slopes"] if row["layer"] == layer)


def _slopes(records: Sequence[Record]) -> str:
    header, columns = ["layer"], []
    for rectifier in RECTIFIERS:
        kind = rectifiers.NAMES[rectifier].removeprefix("PReLU ")
        header += [f"{kind}: paper", *(f"{kind}: {name}" for name in rectifiers.SETS.values())]
        columns += [[f"{slope:.3f}" for slope in PAPER[rectifier]]]
        columns += [_column(rectifiers.of(records, dataset, rectifier)) for dataset in rectifiers.DATA]
    return markdown(header, zip(LAYERS, *columns, strict=True))


def _column(runs: Sequence[Record]) -> list[str]:
    return [mean_of_runs(runs, partial(slope_of, layer=layer), digits=3) for layer in LAYERS]


def _ranks(records: Sequence[Record]) -> str:
    header = ["slopes", "images", "conv1 / mean of the others", "rank correlation with depth", "with the paper's"]
    rows = []
    for rectifier in RECTIFIERS:
        name = rectifiers.NAMES[rectifier].removeprefix("PReLU ")
        rows.append([name, "paper: ImageNet", *_shape(PAPER[rectifier]), NONE])
        for dataset, images in rectifiers.SETS.items():
            means = _means(rectifiers.of(records, dataset, rectifier))
            rows.append([name, images, *_shape(means), _rank_correlation(means, PAPER[rectifier])])
    return markdown(header, rows)


def _shape(slopes: Sequence[float]) -> list[str]:
    """Whether the first is large, and whether they fall."""
    first = f"{slopes[0] / statistics.mean(slopes[1:]):.2f}" if slopes else NONE
    return [first, _rank_correlation(slopes, range(len(slopes)))]


def _rank_correlation(slopes: Sequence[float], others: Sequence[float]) -> str:
    if len(set(slopes)) < 2:
        return NONE
    from scipy import stats

    return f"{stats.spearmanr(slopes, others).statistic:+.2f}"


def _means(runs: Sequence[Record]) -> list[float]:
    """The slope of each layer, the mean over the runs that did not fail; empty without such runs."""
    found = finished(runs)
    return [statistics.mean(slope_of(record, layer) for record in found) for layer in LAYERS] if found else []


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """The slope of each layer, ours and the paper's, in a panel per kind of slopes."""
    figure = new_figure(8.6, 4.1)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, rectifier in zip(panels, RECTIFIERS, strict=True):
        axes.plot(LAYERS, PAPER[rectifier], "D--", color="black", markersize=4, linewidth=1, label="paper, ImageNet")
        for shift, (dataset, name) in zip((-0.1, 0.1), rectifiers.SETS.items(), strict=True):
            draw_layers(axes, rectifiers.of(records, dataset, rectifier), COLOURS[dataset], name, shift)
        finish_layers(axes, rectifier)
    finish_panels(figure, panels)
    return {"slopes": figure}


def draw_layers(axes: "Axes", runs: Sequence[Record], colour: str, label: str, shift: float) -> None:
    """Draws the mean slope of each layer, with a bar from the lowest to the highest run."""
    means = _means(runs)
    if not means:
        return
    found = finished(runs)
    every = [[slope_of(record, layer) for record in found] for layer in LAYERS]
    below = [mean - min(slopes) for mean, slopes in zip(means, every, strict=True)]
    above = [max(slopes) - mean for mean, slopes in zip(means, every, strict=True)]
    places = [place + shift for place in range(len(LAYERS))]
    axes.errorbar(places, means, yerr=[below, above], fmt="o-", color=colour, markersize=4, linewidth=1.4, label=label)


def finish_layers(axes: "Axes", rectifier: str) -> None:
    """Names the layers, and where slopes start."""
    axes.axhline(START, color="#888888", linewidth=1, linestyle=":", label=f"start, {START}")
    axes.set_title(f"{rectifiers.NAMES[rectifier]} slopes")
    axes.set_xticks(range(len(LAYERS)), LAYERS, rotation=60, ha="right", rotation_mode="anchor", fontsize=8.5)
    tidy(axes)


def finish_panels(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """Puts what panels of slopes share below and beside them."""
    panels[0].set_ylabel("slope")
    panels[0].set_ylim(bottom=min(0.0, panels[0].get_ylim()[0]))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)


STUDY = Study(claim="Table 1: learnt slopes by depth", trials=trials, take=train, tables=tables, plots=plots)
