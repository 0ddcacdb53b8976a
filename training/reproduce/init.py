"""Figures 2 and 3: how plain networks of 14, 22 and 30 layers learn from four kinds of initial weights."""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training.reproduce import figures
from training.reproduce.curves import (
    Curve,
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
    from matplotlib.figure import Figure

DEPTHS = (14, 22, 30)
RECTIFIERS = ("relu", "prelu")
RULES = ("he_forward", "he_backward", "xavier", "fixed_0.01")
SEEDS = range(3)

NAMES = {"relu": "ReLU", "prelu": "PReLU"}
RULE_NAMES = {"he_forward": "He fan_in", "he_backward": "He fan_out", "xavier": "Xavier", "fixed_0.01": "std 0.01"}
LOOKS: dict[str, dict[str, Any]] = {
    "he_forward": {"color": figures.BLUE},
    "he_backward": {"color": figures.GREEN},
    "xavier": {"color": figures.VERMILION, "linewidth": 2.5},
    "fixed_0.01": {"color": "black", "linestyle": (0, (3, 2))},  # lies on Xavier where neither learns
}

RECIPE: dict[str, Any] = {
    "dataset": "cifar10",
    "train_split": "train[:20000]",
    "test_split": "test[:2000]",
    "epochs": 2,
    "batch_size": 64,
    "learning_rate": 0.01,
    "warmup_steps": 0,
    "schedule": "linear",
    "precision": "mixed_bfloat16",
    "evaluate_every": 78,
    "checkpoint_every": 0,
    "log_every": 13,
}


def trials() -> list[Trial]:
    """Every depth, start and rectifier with three seeds."""
    return [
        Trial(
            f"init/{depth}-{rule}-{rectifier}-{seed}",
            {
                "network": {"depth": depth, "filters": [16, 32, 64], "rectifier": rectifier},
                "start": {"rule": rule},
                "config": RECIPE | {"seed": seed},
            },
        )
        for seed, depth, rule, rectifier in itertools.product(SEEDS, DEPTHS, RULES, RECTIFIERS)
    ]


def of(records: Sequence[Record], depth: int, rectifier: str, rule: str) -> list[Record]:
    """The records of one depth, rectifier and rule."""

    def case(settings: dict[str, Any]) -> tuple[int, str, str]:
        return settings["network"]["depth"], settings["network"]["rectifier"], settings["start"]["rule"]

    return [record for record in records if case(record["settings"]) == (depth, rectifier, rule)]


def errors(record: Record) -> Curve:
    """The error on the test images in percent, by epoch."""
    return _errors_by_epoch(record, "evaluation")


def training_errors(record: Record) -> Curve:
    """The error on the training images in percent, by epoch: that of the last six batches on record."""
    return smooth(_errors_by_epoch(record, "train"), 6)


def gradients(record: Record) -> Curve:
    """The mean square of the gradient of each layer's kernel before the first step, by the layer's number."""
    return {
        float(index): float(row["gradient_mean_square"]) for index, row in enumerate(record["first_signals"], start=1)
    }


def epochs_to_learn(record: Record) -> float:
    """The epochs until a batch has a loss below 2.2; infinite without one."""
    return steps_to_learn(record) * _epochs_per_step(record)


def _errors_by_epoch(record: Record, event: str) -> Curve:
    accuracy = curve(record, event, "accuracy")
    return {step * _epochs_per_step(record): 100 * (1 - each) for step, each in accuracy.items()}


def _epochs_per_step(record: Record) -> float:
    return float(record["settings"]["config"]["epochs"] / max(curve(record, "train", "loss")))


def log_mean_square(record: Record, layer: str, field: str) -> float:
    """The logarithm to base 10 of one of a layer's mean squares before the first step; infinite for 0."""
    (value,) = (float(row[field]) for row in record["first_signals"] if row["name"] == layer)
    return math.log10(value) if value > 0 else -math.inf


def tables(records: Sequence[Record]) -> dict[str, str]:
    """`paper` has the paper's findings and ours, `errors` a row per depth, rectifier and rule."""
    return {"paper": _paper(records), "errors": _errors(records), "cost": figures.cost_table(records)}


def _errors(records: Sequence[Record]) -> str:
    header = ["layers", "rectifier", "initial weights", "test error, %", "training loss", "epochs to a loss of 2.2"]
    header += ["gradient of `conv1`, log10", "less that of `fc3`"]
    cases = itertools.product(DEPTHS, RECTIFIERS, RULES)
    rows = [_row(*case, runs) for case in cases if (runs := of(records, *case))]
    return figures.markdown(header, rows) + failures(records)


def _row(depth: int, rectifier: str, rule: str, runs: list[Record]) -> list[Any]:
    def conv1(record: Record) -> float:
        return log_mean_square(record, "conv1", "gradient_mean_square")

    def ratio(record: Record) -> float:
        return conv1(record) - log_mean_square(record, "fc3", "gradient_mean_square")

    learning = [cell(runs, final_error, 1), cell(runs, final_loss, 2), cell(runs, epochs_to_learn, 2)]
    gradients = [cell(runs, figure, 1, infinite="underflow") for figure in (conv1, ratio)]
    return [depth, NAMES[rectifier], RULE_NAMES[rule], *learning, *gradients]


def _paper(records: Sequence[Record]) -> str:
    def ours(depth: int, figure: Callable[[Record], float], digits: int) -> str:
        cells = [(rule, cell(of(records, depth, "relu", rule), figure, digits)) for rule in RULES[:3]]
        return f"{depth} layers: " + ", ".join(f"{RULE_NAMES[rule]} {text}" for rule, text in cells)

    epochs, errors = "Epochs to a loss of 2.2, ", "Test error, %, "
    rows = [
        ["Figure 2: 22 layers", "both learn, He earlier", epochs + ours(22, epochs_to_learn, 2)],
        ["Figure 3: 30 layers", "He learns, Xavier stalls", epochs + ours(30, epochs_to_learn, 2)],
        ["14 layers: He no better than Xavier", "33.82, 33.90", errors + ours(14, final_error, 1)],
        ["30 layers, He: worse than 14", "38.56", errors + ours(30, final_error, 1)],
        ["std 0.01: share of equation 14's gradient that is left", "10^-4.2 in VGG-B", _vanishing(records)],
    ]
    return figures.markdown(["finding, with ReLU", "in the paper (top-1 error, %)", "here"], rows)


def _vanishing(records: Sequence[Record]) -> str:
    """The gradient of `conv1`'s outputs with a std of 0.01, divided by that with equation 14."""
    fixed, he = (
        [log_mean_square(run, "conv1", "backward_mean_square") for run in finished(of(records, 14, "relu", rule))]
        for rule in ("fixed_0.01", "he_backward")
    )
    if not fixed or not he:
        return NONE
    return f"10^{(statistics.mean(fixed) - statistics.mean(he)) / 2:.1f} at `conv1` of 14 layers"


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """`init` and `init_training` have the errors over epochs, `init_gradients` the gradients by layer at the start."""
    test = _panels(records, errors, "epochs", "test error, %")
    training = _panels(records, training_errors, "epochs", "training error, %")
    for axes in test.axes + training.axes:
        draw_guess(axes, 90, RECIPE["epochs"])
    by_layer = _panels(records, gradients, "layer", "mean square of the gradient")
    for axes, (_, depth) in zip(by_layer.axes, itertools.product(RECTIFIERS, DEPTHS), strict=True):
        axes.set_yscale("log")
        axes.set_xticks((1, depth // 2, depth))
    return {"init": test, "init_training": training, "init_gradients": by_layer}


def _panels(records: Sequence[Record], line: Callable[[Record], Curve], x: str, y: str) -> "Figure":
    """A panel per depth and rectifier, with a band per rule."""
    figure = figures.new_figure(8.5, 5.2)
    panels = figure.subplots(len(RECTIFIERS), len(DEPTHS), sharex="col", sharey=True)
    for axes, (rectifier, depth) in zip(panels.flat, itertools.product(RECTIFIERS, DEPTHS), strict=True):
        for rule, look in LOOKS.items():
            draw_band(axes, [line(record) for record in finished(of(records, depth, rectifier, rule))], **look)
        axes.set_title(f"{depth} layers, {NAMES[rectifier]}", fontsize=10)
        figures.tidy(axes)
    for axes in panels[:, 0]:
        axes.set_ylabel(y)
    for axes in panels[-1]:
        axes.set_xlabel(x)
    figures.legend_above(figure, {RULE_NAMES[rule]: look for rule, look in LOOKS.items()})
    return figure


STUDY = Study(
    claim="Figures 2 and 3: which initial weights let deep plain networks learn",
    trials=trials,
    take=train,
    tables=tables,
    plots=plots,
)
