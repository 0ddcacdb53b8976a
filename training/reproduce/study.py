"""A study: a claim of the paper, and the trials that measure it here."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training.reproduce.trial import Record, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A claim and its trials.

    Attributes:
        claim: What is measured, in a line.
        trials: Lists them; their sizes were chosen before the first was taken.
        take: Takes one by its settings, in a folder of its own, and returns what was found.
        tables: Makes the page's tables in Markdown, by the name of their place, of the records of some of the trials.
        plots: Draws the page's plots, by the name of their file without its ending.
        parallel: Whether several trials may be taken at a time; not where they are timed.
    """

    claim: str
    trials: Callable[[], list[Trial]]
    take: Callable[[dict[str, Any], pathlib.Path], dict[str, Any]]
    tables: Callable[[Sequence[Record]], dict[str, str]]
    plots: Callable[[Sequence[Record]], "dict[str, Figure]"]
    parallel: bool = True
