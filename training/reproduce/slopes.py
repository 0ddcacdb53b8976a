"""Table 1: the slopes that were learnt, layer by layer."""

import itertools
from collections.abc import Sequence
from typing import Any

from training.reproduce import rectifiers
from training.reproduce.study import Study
from training.reproduce.train import train
from training.reproduce.trial import Record, Trial

RECTIFIERS = ("prelu_shared", "prelu")


def trials() -> list[Trial]:
    """Those of `rectifiers` that learn slopes."""
    every = itertools.product(rectifiers.DATA, rectifiers.SEEDS, RECTIFIERS)
    return [rectifiers.trial(dataset, rectifier, seed) for dataset, seed, rectifier in every]


def tables(records: Sequence[Record]) -> dict[str, str]:
    """No tables yet."""
    return {}


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """No plots yet."""
    return {}


STUDY = Study(claim="Table 1: learnt slopes by depth", trials=trials, take=train, tables=tables, plots=plots)
