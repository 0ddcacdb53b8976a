"""Slopes that start at 0, at 0.25 and tailored, in plain networks of 14 to 100 layers: where does learning stall?"""

import itertools
from collections.abc import Sequence
from typing import Any

from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

DEPTHS = (14, 30, 60, 100)
SLOPES: dict[str, dict[str, float]] = {"0": {"slope": 0.0}, "0.25": {"slope": 0.25}, "tailored": {"tailor": 0.9}}
SEEDS = range(3)

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


def tables(records: Sequence[Record]) -> dict[str, str]:
    """No tables yet."""
    return {}


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """No plots yet."""
    return {}


STUDY = Study(
    claim="Slopes for plain networks of up to 100 layers", trials=trials, take=train, tables=tables, plots=plots
)
