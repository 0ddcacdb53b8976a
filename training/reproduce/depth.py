"""Slopes that start at 0, at 0.25 and tailored, in plain networks of 14 to 100 layers: where does learning stall?"""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from training.reproduce import figures
from training.reproduce.curves import (
    cell,
    curve,
    draw_band,
    draw_guess,
    failures,
    final_loss,
    smooth,
    steps_to_learn,
)
from training.reproduce.figures import NONE, finished
from training.reproduce.pairs import final_error
from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEPTHS = (14, 30, 60, 100)
SLOPES: dict[str, dict[str, float]] = {"0": {"slope": 0.0}, "0.25": {"slope": 0.25}, "tailored": {"tailor": 0.9}}
SEEDS = range(3)

NAMES = {"0": "slopes start at 0", "0.25": "at 0.25", "tailored": "tailored"}

LOOKS: dict[str, dict[str, Any]] = {
    "0": {"color": figures.VERMILION},
    "0.25": {"color": figures.BLUE},
    "tailored": {"color": figures.GREEN},
}

RECIPE: dict[str, Any] = {
    "dataset": "cifar10",
    "train_split": "train[:20000]",
    "test_split": "test[:2000]",
    "steps": 400,
    "batch_size": 64,
    "learning_rate": 0.01,
    "warmup_steps": 0,
    "schedule": "linear",
    "clip_norm": 1.0,
    "precision": "mixed_bfloat16",
    "evaluate_every": 100,
    "checkpoint_every": 400,
    "log_every": 10,
}


def trials() -> list[Trial]:
    """Every depth and slope with three seeds."""
    return [
        Trial(
            f"depth/{depth}-{name}-{seed}",
            {
                "network": {"depth": depth, "filters": [16, 32, 64], "rectifier": "prelu"},
                "start": {"rule": "he_forward", **slope},
                "config": RECIPE | {"seed": seed},
            },
        )
        for seed, depth, (name, slope) in itertools.product(SEEDS, DEPTHS, SLOPES.items())
    ]


def of(records: Sequence[Record], depth: int, name: str) -> list[Record]:
    """The records of one depth and one start of the slopes."""
    wanted = SLOPES[name].items()
    return [
        record
        for record in records
        if record["settings"]["network"]["depth"] == depth and wanted <= record["settings"]["start"].items()
    ]


def likeness(slope: float, rectifiers: int) -> float:
    """C(0) of a plain network of wide layers: the correlation that it gives to two images that have none.

    Args:
        slope: Of all rectifiers.
        rectifiers: Their number, one less than the layers with a kernel.

    Reference:
        Zhang, Botev and Martens, "Deep Learning without Shortcuts", 2022, section 3.
    """
    c = 0.0
    for _ in range(rectifiers):
        arc = math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c
        c = min(1.0, ((1 - slope) ** 2 * arc / math.pi + 2 * slope * c) / (1 + slope**2))
    return c


def mean_slope(record: Record) -> float:
    """The mean of the slopes of all layers after training."""
    return statistics.fmean(float(row["mean"]) for row in record["slopes"])


def tables(records: Sequence[Record]) -> dict[str, str]:
    """`paper` has the findings of both papers and ours, `runs` a row per depth and start."""
    return {"paper": _paper(records), "runs": _runs(records), "cost": figures.cost_table(records)}


def _runs(records: Sequence[Record]) -> str:
    header = ["layers", "slopes start at", "C(0)", "test error, %", "training loss"]
    header += ["steps to a loss of 2.2", "mean slope at the end"]
    cases = itertools.product(DEPTHS, SLOPES)
    rows = [_row(depth, name, runs) for depth, name in cases if (runs := of(records, depth, name))]
    return figures.markdown(header, rows) + failures(records)


def _row(depth: int, name: str, runs: list[Record]) -> list[Any]:
    slope = cell(runs, lambda record: float(record["start_slope"]), 3)
    return [
        depth,
        f"tailored: {slope}" if name == "tailored" else name,
        cell(runs, lambda record: likeness(record["start_slope"], depth - 1), 3),
        cell(runs, final_error, 1),
        cell(runs, final_loss, 2),
        cell(runs, steps_to_learn, 0),
        cell(runs, mean_slope, 3),
    ]


def _paper(records: Sequence[Record]) -> str:
    def ours(depths: Sequence[int], name: str) -> str:
        return ", ".join(f"{depth} layers {cell(of(records, depth, name), final_error, 1)}" for depth in depths)

    rows = [
        ["He et al.: 30 layers are worse than 14", "14 layers 33.82, 30 layers 38.56", ours(DEPTHS[:2], "0")],
        ["Zhang et al.: with C(0) = 0.9, depth costs no accuracy", NONE, ours(DEPTHS, "tailored")],
    ]
    return figures.markdown(["finding", "top-1 error in the paper, %", "test error here, %"], rows)


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """`depth` has the training losses over steps, a panel per depth."""
    figure = figures.new_figure(8.5, 3.2)
    panels = figure.subplots(1, len(DEPTHS), sharex=True, sharey=True)
    for axes, depth in zip(panels, DEPTHS, strict=True):
        for name in SLOPES:
            _draw(axes, depth, name, finished(of(records, depth, name)))
        draw_guess(axes, math.log(10), RECIPE["steps"])
        axes.set_title(f"{depth} layers", fontsize=10)
        axes.set_xlabel("steps")
        figures.tidy(axes)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low - (high - low) / 4, high)  # room for C(0)
    panels[0].set_ylabel("training loss")
    figures.legend_above(figure, {NAMES[name]: look for name, look in LOOKS.items()})
    return {"depth": figure}


def _draw(axes: "Axes", depth: int, name: str, runs: list[Record]) -> None:
    """Draws the losses of one start, each the mean of four batches on record; its C(0) stands in the corner."""
    draw_band(axes, [smooth(curve(record, "train", "loss"), 4) for record in runs], **LOOKS[name])
    if runs:
        text = f"C(0) = {likeness(runs[0]['start_slope'], depth - 1):.3f}"
        y = 0.05 + 0.08 * [*SLOPES].index(name)
        axes.text(0.05, y, text, transform=axes.transAxes, fontsize=8, **LOOKS[name])


STUDY = Study(
    claim="Slopes for plain networks of up to 100 layers", trials=trials, take=train, tables=tables, plots=plots
)
