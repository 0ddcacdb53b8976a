"""Section 2.1: weight decay on slopes "tends to push them to zero"; does it, and what becomes of the error?"""

import itertools
import math
import statistics
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from training.config import Config
from training.reproduce import rectifiers, slopes
from training.reproduce.figures import (
    BLUE,
    NONE,
    VERMILION,
    cost_table,
    finished,
    markdown,
    mean_and_std,
    new_figure,
    tidy,
)
from training.reproduce.pairs import (
    by_seed,
    compare,
    comparison_cells,
    draw_pairs,
    final_error,
    in_pairs,
    mean_of_runs,
    seed_cells,
)
from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUPS = {"conv1": "conv1", "conv2_1 to conv2_4": "conv2", "conv3_1 to conv3_6": "conv3", "fc1 and fc2": "fc"}


def trials() -> list[Trial]:
    """The networks of `rectifiers` on CIFAR-10 that learn slopes, and such with decay on the slopes, too."""
    decay = rectifiers.RECIPE["weight_decay"]
    return [
        trial
        for seed, rectifier in itertools.product(rectifiers.SEEDS, slopes.RECTIFIERS)
        for trial in (
            rectifiers.trial("cifar10", rectifier, seed),
            rectifiers.trial("cifar10", rectifier, seed, slope_decay=decay, file="decay"),
        )
    ]


def tables(records: Sequence[Record]) -> dict[str, str]:
    """`slopes` and `errors` compare runs with decay with those without, `seeds` has every run."""
    return {
        "slopes": _slopes(records),
        "errors": _errors(records),
        "seeds": _seeds(records),
        "cost": cost_table(records),
    }


def _both(records: Sequence[Record], rectifier: str) -> tuple[list[Record], list[Record]]:
    """The records of one rectifier without and with decay of its slopes."""
    runs = rectifiers.of(records, "cifar10", rectifier)
    decayed = [record for record in runs if _decay_of(record)]
    return [record for record in runs if not _decay_of(record)], decayed


def _decay_of(record: Record) -> float:
    return float(record["settings"]["network"]["slope_decay"])


def shrinkage(record: Record) -> float:
    """The factor that decay alone would leave of a slope, from the settings and the last step of a run.

    A slope that only decays loses `decay * rate / (1 - momentum)` of itself per step, once the momentum has built up.
    The product over all steps is about exp(-decay * sum of rates / (1 - momentum)).
    """
    config = Config(**record["settings"]["config"])
    rates = learning_rates(config, record["events"][-1]["step"])
    return math.exp(-_decay_of(record) * sum(rates) / (1 - config.momentum))


def learning_rates(config: Config, steps: int) -> list[float]:
    """The rate of each step: it rises linearly over `warmup_steps`, then falls linearly to 0."""
    warmup = config.warmup_steps
    return [
        config.learning_rate * (step / warmup if step < warmup else (steps - step) / (steps - warmup))
        for step in range(steps)
    ]


def group_slope(record: Record, group: str) -> float:
    """The mean slope of a group's layers, each by its mean over channels."""
    return statistics.mean(slopes.slope_of(record, layer) for layer in slopes.LAYERS if layer.startswith(group))


def _slopes(records: Sequence[Record]) -> str:
    header = ["slopes", "layers", "without decay", "with decay", "ratio", "ratio by decay alone"]
    rows = []
    for rectifier, (layers, group) in itertools.product(slopes.RECTIFIERS, GROUPS.items()):
        without, decayed = _both(records, rectifier)
        slope = partial(group_slope, group=group)
        ratios = [one / other for one, other in in_pairs(by_seed(decayed, slope), by_seed(without, slope))]
        means = [mean_of_runs(runs, slope, digits=3) for runs in (without, decayed)]
        alone = [shrinkage(record) for record in finished(decayed)]
        row = [rectifiers.NAMES[rectifier], layers, *means, mean_and_std(ratios, 2) if ratios else NONE]
        rows.append([*row, f"{statistics.mean(alone):.2f}" if alone else NONE])
    return markdown(header, rows)


def _errors(records: Sequence[Record]) -> str:
    header = ["rectifier", "error without decay, %", "with decay, %", "with less without [95 % interval]", "p"]
    header += ["p by Holm", "lower with decay in"]
    runs = [_both(records, rectifier) for rectifier in slopes.RECTIFIERS]
    errors = [[by_seed(each, final_error) for each in pair] for pair in runs]
    compared = comparison_cells([compare(decayed, without) for without, decayed in errors])
    rows = [
        [rectifiers.NAMES[rectifier], *(mean_of_runs(each, final_error) for each in pair), *cells]
        for rectifier, pair, cells in zip(slopes.RECTIFIERS, runs, compared, strict=True)
    ]
    return markdown(header, rows)


def _seeds(records: Sequence[Record]) -> str:
    rows = [
        [rectifiers.NAMES[rectifier], decay, *seed_cells(runs, rectifiers.SEEDS, final_error)]
        for rectifier in slopes.RECTIFIERS
        for decay, runs in zip(("without", "with"), _both(records, rectifier), strict=True)
    ]
    return markdown(["rectifier", "decay", *(f"seed {seed}" for seed in rectifiers.SEEDS)], rows)


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """The slopes of each layer with and without decay, and the errors of the same runs."""
    figure = new_figure(8.6, 4.1)
    *panels, errors = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    panels[1].sharey(panels[0])
    for place, (axes, rectifier) in enumerate(zip(panels, slopes.RECTIFIERS, strict=True)):
        without, decayed = _both(records, rectifier)
        slopes.draw_layers(axes, without, BLUE, "without decay", -0.1)
        slopes.draw_layers(axes, decayed, VERMILION, "with decay", 0.1)
        _draw_decay_alone(axes, decayed)
        slopes.finish_layers(axes, rectifier)
        columns = [by_seed(runs, final_error) for runs in (without, decayed)]
        draw_pairs(errors, (3 * place, 3 * place + 1), columns, (BLUE, VERMILION))
    errors.set_xticks((0.5, 3.5), ("channel-\nshared", "channel-\nwise"), fontsize=8.5)
    errors.set_title("test error, %")
    tidy(errors)
    slopes.finish_panels(figure, panels)
    return {"decay": figure}


def _draw_decay_alone(axes: "Axes", decayed: Sequence[Record]) -> None:
    """Draws where slopes would end if the loss did not move them."""
    found = finished(decayed)
    if found:
        end = slopes.START * shrinkage(found[0])
        axes.axhline(end, color=VERMILION, linewidth=1, linestyle="--", label=f"by decay alone, {end:.2f}")


STUDY = Study(claim="Section 2.1: weight decay on the slopes", trials=trials, take=train, tables=tables, plots=plots)
