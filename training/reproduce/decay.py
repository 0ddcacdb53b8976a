"""Section 2.1: weight decay on slopes "tends to push them to zero"; does it, and what becomes of the error?"""

import itertools
from collections.abc import Sequence
from typing import Any

from training.reproduce import rectifiers
from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial


def trials() -> list[Trial]:
    """Those networks of `rectifiers` on CIFAR-10 that learn slopes, with the kernels' decay on the slopes, too."""
    decay = rectifiers.RECIPE["weight_decay"]
    pairs = itertools.product(rectifiers.SEEDS, ("prelu_shared", "prelu"))
    return [rectifiers.trial("cifar10", rectifier, seed, slope_decay=decay) for seed, rectifier in pairs]


def tables(records: Sequence[Record]) -> dict[str, str]:
    """No tables yet."""
    return {}


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """No plots yet."""
    return {}


STUDY = Study(claim="Section 2.1: weight decay on the slopes", trials=trials, take=train, tables=tables, plots=plots)
