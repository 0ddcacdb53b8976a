"""Figures 2 and 3: how plain networks of 14, 22 and 30 layers learn from four kinds of initial weights."""

import itertools
from collections.abc import Sequence
from typing import Any

from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

DEPTHS = (14, 22, 30)
RECTIFIERS = ("relu", "prelu")
RULES = ("he_forward", "he_backward", "xavier", "fixed_0.01")
SEEDS = range(3)

RECIPE: dict[str, Any] = {
    "dataset": "cifar10",
    "train_split": "train[:20000]",
    "test_split": "test[:2000]",
    "epochs": 3,
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


def tables(records: Sequence[Record]) -> dict[str, str]:
    """No tables yet."""
    return {}


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """No plots yet."""
    return {}


STUDY = Study(
    claim="Figures 2 and 3: which initial weights let deep plain networks learn",
    trials=trials,
    take=train,
    tables=tables,
    plots=plots,
)
