"""Tables 4 and 5: centre, ten-crop, dense and multi-scale views of photos, with ReLU and with PReLU."""

import itertools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

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

RECIPE: dict[str, Any] = {
    "dataset": "tf_flowers",
    "train_split": "train[:80%]",
    "test_split": "train[80%:]",
    "image_size": 64,
    "scale_min": 64,
    "scale_max": 96,
    "test_scale": 72,
    "flip": True,
    "epochs": 16,
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

    views = {}
    for name, scales in settings["views"].items():
        started = time.process_time()
        result = evaluate_runs([Run(folder)], Protocol(VIEWS[name][0], tuple(scales)))
        views[name] = {"error": result["top1_error"], "cpu_seconds": time.process_time() - started}
    return found | {"views": views}


def tables(records: Sequence[Record]) -> dict[str, str]:
    """No tables yet."""
    return {}


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """No plots yet."""
    return {}


STUDY = Study(
    claim="Tables 4 and 5: views of an image", trials=trials, take=train_and_evaluate, tables=tables, plots=plots
)
