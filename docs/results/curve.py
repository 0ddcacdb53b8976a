"""Draws the curve of docs/results/README.md: errors while the config cifar10 trains.

    python docs/results/curve.py [--metrics FILE] [--into FILE]

It needs matplotlib (`pip install -e .[plots]`). `--metrics` is the `metrics.jsonl` of a run's folder.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from training.reproduce.figures import BLUE, VERMILION, save

FOLDER = Path(__file__).parent


def read_errors(metrics: Path, event: str) -> tuple[list[int], list[float]]:
    """The steps of one kind of entry, and the error in percent at each."""
    entries = [json.loads(line) for line in metrics.read_text().splitlines()]
    chosen = [entry for entry in entries if entry["event"] == event]
    return [entry["step"] for entry in chosen], [100 * (1 - entry["accuracy"]) for entry in chosen]


def draw_errors(metrics: Path) -> Figure:
    """The errors of the batches that the run logged, and those of its evaluations."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*read_errors(metrics, "train"), color=BLUE, linewidth=1, label="a training batch")
    steps, errors = read_errors(metrics, "evaluation")
    axes.plot(steps, errors, color=VERMILION, marker="o", label="the test images")
    axes.annotate(f"{errors[-1]:.2f} %", (steps[-1], errors[-1]), (0, 9), textcoords="offset points", ha="center")
    axes.set(yscale="log", xlabel="step", ylabel="error in %", yticks=(5, 10, 20, 40, 80))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", type=Path, default=FOLDER / "cifar10.jsonl")
    parser.add_argument("--into", type=Path, default=FOLDER / "cifar10.svg")
    arguments = parser.parse_args(argv)
    save(draw_errors(arguments.metrics), arguments.into)


if __name__ == "__main__":
    main()
