"""Tables 4 and 5: centre, ten-crop, dense and multi-scale views of photos, with ReLU and with PReLU."""

import itertools
import pathlib
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from training.reproduce import rectifiers
from training.reproduce.figures import BLUE, NONE, VERMILION, cost_table, finished, markdown, new_figure, tidy
from training.reproduce.pairs import (
    BySeed,
    by_seed,
    compare,
    comparison_cells,
    draw_pairs,
    mean_of_runs,
    seed_cells,
)
from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

SEEDS = range(5)
RECTIFIERS = ("relu", "prelu")
VIEWS: dict[str, tuple[str, tuple[int, ...]]] = {
    "centre": ("centre", ()),
    "ten": ("ten", (72,)),
    "dense 64": ("dense", (64,)),
    "dense 80": ("dense", (80,)),
    "dense 96": ("dense", (96,)),
    "dense 64, 80, 96": ("dense", (64, 80, 96)),
}
PAPER = {  # Tables 4 and 5, model A: 224 pixels, scales 256, 384 and 480
    "ten": "10-view: 26.48 → 25.59",
    "dense 64": "256: 26.25 → 25.81",
    "dense 80": "384: 24.77 → 24.20",
    "dense 96": "480: 25.46 → 24.83",
    "dense 64, 80, 96": "multi-scale: 24.02 → 22.97",
}

RECIPE: dict[str, Any] = {
    "dataset": "tf_flowers",
    "train_split": "train[:80%]",
    "test_split": "train[80%:]",
    "image_size": 64,
    "scale_min": 64,
    "scale_max": 96,
    "test_scale": 72,
    "flip": True,
    "epochs": 10,
    "batch_size": 64,
    "learning_rate": 0.02,
    "warmup_steps": 50,
    "schedule": "linear",
    "weight_decay": 5e-4,
    "precision": "mixed_bfloat16",
    "evaluate_every": 0,
    "checkpoint_every": 0,
    "log_every": 23,
}


def trials() -> list[Trial]:
    """Both rectifiers with every seed."""
    return [
        Trial(
            f"views/{rectifier}-{seed}",
            {
                "network": {"filters": [16, 32, 64], "rectifier": rectifier},
                "start": {"rule": "he_forward"},
                "config": RECIPE | {"seed": seed},
                "views": {name: list(scales) for name, (_, scales) in VIEWS.items()},
            },
        )
        for seed, rectifier in itertools.product(SEEDS, RECTIFIERS)
    ]


def train_and_evaluate(settings: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Trains a network, then evaluates it by each view: `views` has its top-1 error and the seconds it took."""
    found = train(settings, folder)

    from training.evaluation.evaluate import evaluate_runs
    from training.evaluation.views import Protocol
    from training.run.folder import Run

    evaluate_runs([Run(folder)], Protocol("centre", ()))  # takes what the first evaluation of a process costs
    views = {}
    for name, scales in settings["views"].items():
        started = time.process_time()
        result = evaluate_runs([Run(folder)], Protocol(VIEWS[name][0], tuple(scales)))
        views[name] = {"error": result["top1_error"], "cpu_seconds": time.process_time() - started}
    return found | {"views": views}


def tables(records: Sequence[Record]) -> dict[str, str]:
    """`views` compares PReLU with ReLU in each view, `gains` each view with the centre; `seeds` has every run."""
    return {
        "views": _views(records),
        "gains": _gains(records),
        "seeds": _seeds(records),
        "cost": cost_table(records),
    }


def _of(records: Sequence[Record], rectifier: str) -> list[Record]:
    return rectifiers.of(records, RECIPE["dataset"], rectifier)


def _errors(records: Sequence[Record], rectifier: str, view: str) -> BySeed:
    return by_seed(_of(records, rectifier), partial(view_error, view=view))


def view_error(record: Record, view: str) -> float:
    """The top-1 error of a view, in percent."""
    return 100 * float(record["views"][view]["error"])


def view_seconds(record: Record, view: str) -> float:
    """The CPU time of an evaluation by a view."""
    return float(record["views"][view]["cpu_seconds"])


def _views(records: Sequence[Record]) -> str:
    header = ["view", "ReLU, %", "PReLU, %", "PReLU's less ReLU's [95 % interval]", "p", "p by Holm", "lower in"]
    header += ["CPU time / centre's", "paper's nearest: ReLU → PReLU, %"]
    errors = [[_errors(records, rectifier, view) for rectifier in RECTIFIERS] for view in VIEWS]
    compared = comparison_cells([compare(prelu, relu) for relu, prelu in errors])
    rows = []
    for view, cells in zip(VIEWS, compared, strict=True):
        means = [mean_of_runs(_of(records, each), partial(view_error, view=view)) for each in RECTIFIERS]
        rows.append([view, *means, *cells, _cost(records, view), PAPER.get(view, NONE)])
    return markdown(header, rows)


def _cost(records: Sequence[Record], view: str) -> str:
    """The median over runs of a view's CPU time divided by the centre's."""
    ratios = [view_seconds(record, view) / view_seconds(record, "centre") for record in finished(records)]
    return f"{statistics.median(ratios):.1f}" if ratios else NONE


def _gains(records: Sequence[Record]) -> str:
    header = ["view", *(f"{name}: less the centre's [95 % interval]" for name in ("ReLU", "PReLU"))]
    rows = [
        [view, *(compare(_errors(records, each, view), _errors(records, each, "centre")) for each in RECTIFIERS)]
        for view in VIEWS
        if view != "centre"
    ]
    return markdown(header, rows)


def _seeds(records: Sequence[Record]) -> str:
    rows = [
        [view, rectifiers.NAMES[rectifier], *seed_cells(_of(records, rectifier), SEEDS, partial(view_error, view=view))]
        for view, rectifier in itertools.product(VIEWS, RECTIFIERS)
    ]
    return markdown(["view", "rectifier", *(f"seed {seed}" for seed in SEEDS)], rows)


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """Every run's error in each view, ReLU and PReLU of one seed joined."""
    figure = new_figure(8.6, 3.9)
    axes = figure.subplots()
    for place, view in enumerate(VIEWS):
        columns = [_errors(records, rectifier, view) for rectifier in RECTIFIERS]
        draw_pairs(axes, (place - 0.17, place + 0.17), columns, (BLUE, VERMILION))
    for name, colour in (("ReLU", BLUE), ("PReLU channel-wise", VERMILION)):
        axes.plot([], [], "o", color=colour, label=name)
    axes.legend(frameon=False)
    axes.set_xticks(range(len(VIEWS)), [view.replace("dense 64, 80, 96", "dense 64,\n80 and 96") for view in VIEWS])
    axes.set_ylabel("test error, %")
    tidy(axes)
    return {"views": figure}


STUDY = Study(
    claim="Tables 4 and 5: views of an image", trials=trials, take=train_and_evaluate, tables=tables, plots=plots
)
