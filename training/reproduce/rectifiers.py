"""Table 2: does a learnt slope lower the error, and what does it cost? Two sets of images, five seeds."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from training.reproduce.figures import (
    BLUE,
    GREEN,
    NONE,
    ORANGE,
    PURPLE,
    VERMILION,
    cost_table,
    markdown,
    new_figure,
    tidy,
)
from training.reproduce.pairs import (
    BySeed,
    Comparison,
    by_seed,
    compare,
    comparison_cells,
    cpu_seconds,
    draw_pairs,
    final_error,
    mean_of_runs,
    median_ratio,
    seed_cells,
)
from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

RECTIFIERS = ("relu", "leaky_relu_0.01", "leaky_relu_0.25", "prelu_shared", "prelu")
SEEDS = range(5)
NAMES = {
    "relu": "ReLU",
    "leaky_relu_0.01": "LeakyReLU 0.01",
    "leaky_relu_0.25": "LeakyReLU 0.25",
    "prelu_shared": "PReLU channel-shared",
    "prelu": "PReLU channel-wise",
}
SETS = {"cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST"}
PAPER = {"relu": "33.82 / 13.34", "prelu_shared": "32.71 / 12.87", "prelu": "32.64 / 12.75"}  # Table 2
COLOURS = dict(zip(RECTIFIERS, (BLUE, PURPLE, ORANGE, GREEN, VERMILION), strict=True))

RECIPE: dict[str, Any] = {
    "batch_size": 128,
    "learning_rate": 0.05,
    "warmup_steps": 200,
    "schedule": "linear",
    "weight_decay": 5e-4,
    "precision": "mixed_bfloat16",
    "evaluate_every": 0,
    "checkpoint_every": 0,
    "log_every": 50,
}
DATA: dict[str, dict[str, Any]] = {
    "cifar10": {"dataset": "cifar10", "epochs": 6, "flip": True, "crop_padding": 2},
    "fashion_mnist": {"dataset": "fashion_mnist", "epochs": 3, "flip": True, "crop_padding": 2},
}


def trials() -> list[Trial]:
    """Every rectifier with every seed on both sets; those of one seed are neighbours."""
    return [trial(dataset, rectifier, seed) for dataset, seed, rectifier in itertools.product(DATA, SEEDS, RECTIFIERS)]


def trial(dataset: str, rectifier: str, seed: int, *, slope_decay: float = 0.0, file: str = "rectifiers") -> Trial:
    """One training."""
    settings = {
        "network": {"filters": [16, 32, 64], "rectifier": rectifier, "slope_decay": slope_decay},
        "start": {"rule": "he_forward"},
        "config": RECIPE | DATA[dataset] | {"seed": seed},
    }
    return Trial(f"{file}/{dataset}-{rectifier}-{seed}", settings)


def of(records: Iterable[Record], dataset: str, rectifier: str) -> list[Record]:
    """The records of one rectifier on one set."""
    return [
        record
        for record in records
        if record["settings"]["config"]["dataset"] == dataset
        and record["settings"]["network"]["rectifier"] == rectifier
    ]


def tables(records: Sequence[Record]) -> dict[str, str]:
    """`errors` compares each rectifier with ReLU, `seeds` has every run."""
    return {"errors": _errors(records), "seeds": _seeds(records), "cost": cost_table(records)}


def _errors(records: Sequence[Record]) -> str:
    header = ["images", "rectifier", "error, %", "less ReLU's [95 % interval]", "p", "p by Holm", "lower in"]
    header += ["CPU time / ReLU's", "paper, ImageNet: top-1 / top-5, %"]
    cases = list(itertools.product(DATA, RECTIFIERS))
    compared = comparison_cells([_against_relu(records, *case) for case in cases])
    rows = []
    for (dataset, rectifier), cells in zip(cases, compared, strict=True):
        runs, relu = of(records, dataset, rectifier), of(records, dataset, "relu")
        cost = median_ratio(by_seed(runs, cpu_seconds), by_seed(relu, cpu_seconds))
        row = [SETS[dataset], NAMES[rectifier], mean_of_runs(runs, final_error), *cells, cost]
        rows.append([*row, PAPER.get(rectifier, NONE)])
    return markdown(header, rows)


def _against_relu(records: Sequence[Record], dataset: str, rectifier: str) -> Comparison:
    """Compares by seed; nothing for ReLU itself."""
    baseline = _by_seed(records, dataset, "relu") if rectifier != "relu" else {}
    return compare(_by_seed(records, dataset, rectifier), baseline)


def _by_seed(records: Sequence[Record], dataset: str, rectifier: str) -> BySeed:
    return by_seed(of(records, dataset, rectifier), final_error)


def _seeds(records: Sequence[Record]) -> str:
    rows = [
        [SETS[dataset], NAMES[rectifier], *seed_cells(of(records, dataset, rectifier), SEEDS, final_error)]
        for dataset, rectifier in itertools.product(DATA, RECTIFIERS)
    ]
    return markdown(["images", "rectifier", *(f"seed {seed}" for seed in SEEDS)], rows)


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """Every run's error, in a panel per set of images."""
    figure = new_figure(8.6, 3.9)
    for axes, dataset in zip(figure.subplots(1, len(DATA)), DATA, strict=True):
        columns = [_by_seed(records, dataset, rectifier) for rectifier in RECTIFIERS]
        draw_pairs(axes, range(len(RECTIFIERS)), columns, [*COLOURS.values()])
        labels = [NAMES[each].replace(" ", "\n").replace("-", "-\n") for each in RECTIFIERS]
        axes.set_xticks(range(len(RECTIFIERS)), labels, fontsize=8.5)
        axes.set_title(SETS[dataset])
        axes.set_ylabel("test error, %")
        tidy(axes)
    return {"rectifiers": figure}


STUDY = Study(claim="Table 2: learnt slopes against fixed ones", trials=trials, take=train, tables=tables, plots=plots)
