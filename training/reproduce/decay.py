"""Section 2.1: weight decay on slopes "tends to push them to zero"; does it, and what becomes of the error?"""

import itertools
from collections.abc import Sequence
from typing import Any

from training.reproduce import rectifiers, slopes
from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial


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
    """No tables yet."""
    return {}


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """No plots yet."""
    return {}


STUDY = Study(claim="Section 2.1: weight decay on the slopes", trials=trials, take=train, tables=tables, plots=plots)
