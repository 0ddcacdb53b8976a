"""What `benchmarks.depth` measured: its files, the tables and the plot of docs/depth.md."""

import json
import math
import statistics
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

Line = dict[str, Any]  # one training: its settings and what came of it

COLORS = {"0": "#d55e00", "0.25": "#0072b2", "tailored": "#009e73"}
BEGIN, END = "<!-- written by benchmarks.depth: {} -->\n", "<!-- end of {} -->"
LEARNT = 1.0  # training loss; chance is log(10) = 2.30


def read(path: Path) -> list[Line]:
    """The lines of a results file; none where there is no file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last_loss(line: Line) -> float:
    """The mean training loss of the last tenth of a run; infinite where it was not finite."""
    losses = line["loss"][-(len(line["loss"]) // 10) :]
    return math.inf if None in losses else statistics.mean(losses)


def best_rates(sweep: list[Line]) -> dict[tuple[int, str], float]:
    """Per depth and start, the learning rate whose training loss was the lowest at the end."""
    return {cell: min(lines, key=last_loss)["learning_rate"] for cell, lines in cells(sweep)}


def cells(lines: list[Line]) -> list[tuple[tuple[int, str], list[Line]]]:
    """The lines of each depth and start, in that order."""

    def cell(line: Line) -> tuple[int, str]:
        return line["depth"], line["start"]

    return [(key, list(group)) for key, group in groupby(sorted(lines, key=cell), key=cell)]


def write_page(folder: Path) -> None:
    """Draws the curves, and writes the tables into depth.md between their marks."""
    results = {name: read(folder / "depth" / f"{name}.jsonl") for name in ("runs", "long", "sweep")}
    with mpl.rc_context({"svg.hashsalt": "depth"}):
        curves(results["runs"]).savefig(folder / "depth.svg", metadata={"Date": None})
    page = folder / "depth.md"
    page.write_text(with_tables(page.read_text(), results))


def with_tables(page: str, results: dict[str, list[Line]]) -> str:
    """The page with the tables of these results in the place of those that it holds."""
    tables = {
        "runs": runs_table(results["runs"]),
        "long": runs_table(results["long"]),
        "sweep": sweep_table(results["sweep"]),
        "cost": cost([line for lines in results.values() for line in lines]),
    }
    for name, table in tables.items():
        before, rest = page.split(BEGIN.format(name))
        page = before + BEGIN.format(name) + table + END.format(name) + rest.split(END.format(name))[1]
    return page


def runs_table(runs: list[Line]) -> str:
    """A row per depth and start: the mean over seeds, and the least and the most of them."""
    rows = [
        [
            depth,
            f"tailored: {lines[0]['slope']:.3f}" if start == "tailored" else start,
            f"{lines[0]['c0']:.3f}",
            spread([line["c0_measured"] for line in lines], 3),
            f"{lines[0]['learning_rate']:g}",
            spread([steps_to_learn(line) for line in lines], 0, infinite="never"),
            spread([last_loss(line) for line in lines], 2),
            spread([100 * line["test_accuracy"] for line in lines], 1),
            spread([line["slope_after"] for line in lines], 3),
        ]
        for (depth, start), lines in cells(runs)
    ]
    header = ["layers", "slopes start at", "C(0)", "measured", "learning rate", "steps to loss 1"]
    return markdown([*header, "training loss", "test accuracy, %", "mean slope at the end"], rows)


def sweep_table(sweep: list[Line]) -> str:
    """A row per depth and start, a column per learning rate: training loss at the end, the lowest in bold."""
    rates = sorted({line["learning_rate"] for line in sweep})
    rows = []
    for (depth, start), lines in cells(sweep):
        losses = {line["learning_rate"]: last_loss(line) for line in lines}
        best = min(losses, key=losses.__getitem__)
        shown = [f"**{losses[rate]:.2f}**" if rate == best else f"{losses[rate]:.2f}" for rate in rates]
        rows.append([depth, start, *shown])
    return markdown(["layers", "slopes start at", *(f"rate {rate:g}" for rate in rates)], rows)


def cost(lines: list[Line]) -> str:
    """How many trainings there were and how long they took."""
    return f"All {len(lines)} trainings took {sum(line['seconds'] for line in lines) / 60:.0f} minutes.\n"


def steps_to_learn(line: Line) -> float:
    """The first step, of those that the curve has, by which the training loss was below 1; infinite without one."""
    interval = line["steps"] // len(line["loss"])
    points = enumerate(line["loss"], start=1)
    return next((point * interval for point, loss in points if loss is not None and loss < LEARNT), math.inf)


def spread(values: list[float | None], digits: int, infinite: str = "not finite") -> str:
    """The mean of some values, their least and their most."""
    finite = [math.inf if value is None else value for value in values]
    figures = [statistics.mean(finite), min(finite), max(finite)]
    mean, low, high = (infinite if math.isinf(figure) else f"{figure:.{digits}f}" for figure in figures)
    return mean if low == high else f"{mean} ({low} to {high})"


def markdown(header: list[str], rows: Iterable[list[Any]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def curves(runs: list[Line]) -> Figure:
    """A panel per depth: training loss over steps, the mean over seeds as a line, their range as a band."""
    depths = sorted({line["depth"] for line in runs})
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    panels = dict(zip(depths, figure.subplots(1, len(depths), sharey=True, squeeze=False)[0], strict=True))
    for (depth, start), lines in cells(runs):
        draw_cell(panels[depth], start, lines)
    for depth, axes in panels.items():
        axes.set_title(f"{depth} layers", fontsize=10)
        axes.axhline(math.log(10), color="black", linewidth=0.8, linestyle=":")
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xlim=(0, runs[0]["steps"]), xticks=[0, runs[0]["steps"] // 2, runs[0]["steps"]])
        axes.legend(
            loc="upper right",
            bbox_to_anchor=(1, 0.9),
            frameon=False,
            fontsize=8,
            title="slopes start at",
            title_fontsize=8,
            alignment="left",
        )
    panels[depths[0]].set(ylabel="training loss", ylim=(0, 2.5))
    return figure


def draw_cell(axes: Any, start: str, lines: list[Line]) -> None:
    """The curves of one start in one panel."""
    interval = lines[0]["steps"] / len(lines[0]["loss"])
    steps = [(index + 0.5) * interval for index in range(len(lines[0]["loss"]))]
    losses = [[math.nan if loss is None else loss for loss in line["loss"]] for line in lines]
    columns = list(zip(*losses, strict=True))
    name = f"{lines[0]['slope']:.2f}, tailored" if start == "tailored" else start
    label = f"{name}: C(0) = {lines[0]['c0']:.3f}"
    low, high = [min(column) for column in columns], [max(column) for column in columns]
    axes.fill_between(steps, low, high, color=COLORS[start], alpha=0.2, linewidth=0)
    axes.plot(steps, [statistics.mean(column) for column in columns], color=COLORS[start], linewidth=1.5, label=label)
