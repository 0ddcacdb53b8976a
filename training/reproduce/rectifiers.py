"""Table 2: does a learnt slope lower the error, and what does it cost? Two sets of images, five seeds."""

import itertools
from collections.abc import Sequence
from typing import Any

from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

RECTIFIERS = ("relu", "leaky_relu_0.01", "leaky_relu_0.25", "prelu_shared", "prelu")
SEEDS = range(5)

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
    "cifar10": {"dataset": "cifar10", "epochs": 8, "flip": True, "crop_padding": 2},
    "fashion_mnist": {"dataset": "fashion_mnist", "epochs": 4, "flip": True, "crop_padding": 2},
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


def tables(records: Sequence[Record]) -> dict[str, str]:
    """No tables yet."""
    return {}


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """No plots yet."""
    return {}


STUDY = Study(claim="Table 2: learnt slopes against fixed ones", trials=trials, take=train, tables=tables, plots=plots)
