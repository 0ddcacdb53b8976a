"""Runs in pairs by their seed: differences with Student's t-test and Holm's correction, and dots that lines join."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from training.reproduce.figures import NONE, finished, mean_and_std
from training.reproduce.trial import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BySeed = dict[int, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Differences of runs that share a seed.

    Attributes:
        differences: A figure of one run less that of the other, one per pair.
        half_width: Half the 95 % confidence interval of their mean, by Student's t; nan without two that differ.
        p: Of the two-sided paired t-test; nan without two that differ.
    """

    differences: tuple[float, ...]
    half_width: float
    p: float

    def __str__(self) -> str:
        """The mean and its 95 % confidence interval."""
        if not self.differences:
            return NONE
        mean = statistics.mean(self.differences)
        if math.isnan(self.half_width):
            return f"{mean:+.2f}"
        return f"{mean:+.2f} [{mean - self.half_width:+.2f}, {mean + self.half_width:+.2f}]"

    @property
    def lower(self) -> str:
        """The number of pairs in which the figure is lower than its partner: `4 of 5`."""
        if not self.differences:
            return NONE
        return f"{sum(each < 0 for each in self.differences)} of {len(self.differences)}"


def compare(ours: BySeed, baseline: BySeed) -> Comparison:
    """Compares runs that share a seed; a seed that one side lacks is left out."""
    pairs = in_pairs(ours, baseline)
    differences = tuple(round(one - other, 9) for one, other in pairs)  # in binary, 0.3 - 0.2 > 0.2 - 0.1
    if len(set(differences)) < 2:
        return Comparison(differences, math.nan, math.nan)
    from scipy import stats

    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(0.95)
    return Comparison(differences, float(high - low) / 2, float(test.pvalue))


def in_pairs(ours: BySeed, baseline: BySeed) -> list[tuple[float, float]]:
    """The figures of each seed that both sides have."""
    return [(ours[seed], baseline[seed]) for seed in sorted(ours.keys() & baseline.keys())]


def median_ratio(ours: BySeed, baseline: BySeed) -> str:
    """The median over seeds of one figure divided by the other."""
    pairs = in_pairs(ours, baseline)
    return f"{statistics.median(one / other for one, other in pairs):.2f}" if pairs else NONE


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p for the number of tests, so that the chance of even one false finding is at most the level.

    Args:
        p_values: Of all tests that are read together; nan where there was none.

    Returns:
        The corrected p, in the same order; nan where there was no test.

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    corrected, largest = list(p_values), 0.0
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        corrected[place] = largest
    return corrected


def comparison_cells(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Cells of the comparisons of a table: difference, p, p corrected for all of them, pairs with the lower figure."""
    corrected = holm([each.p for each in comparisons])
    return [
        [str(each), _p_text(each.p), _p_text(p), each.lower] for each, p in zip(comparisons, corrected, strict=True)
    ]


def _p_text(p: float) -> str:
    """A p with three digits behind the point."""
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def by_seed(records: Iterable[Record], figure: Callable[[Record], float]) -> BySeed:
    """A figure of each run that did not fail, by its seed."""
    return {record["settings"]["config"]["seed"]: figure(record) for record in finished(records)}


def final_error(record: Record) -> float:
    """The error on the test images at the last step, in percent."""
    evaluations = [event for event in record["events"] if event["event"] == "evaluation"]
    return 100 * (1 - float(evaluations[-1]["accuracy"]))


def cpu_seconds(record: Record) -> float:
    """The CPU time of the whole process."""
    return float(record["cpu_seconds"])


def mean_of_runs(records: Sequence[Record], figure: Callable[[Record], float], digits: int = 2) -> str:
    """`12.34 ± 0.56`, the mean and the standard deviation of the runs that did not fail; and how many failed."""
    values = list(by_seed(records, figure).values())
    failed = len(records) - len(values)
    parts = [mean_and_std(values, digits)] if values else []
    parts += [f"({failed} failed)"] if failed else []
    return " ".join(parts) or NONE


def seed_cells(records: Sequence[Record], seeds: Iterable[int], figure: Callable[[Record], float]) -> list[str]:
    """The figure of each run; `failed` of one that failed, and a dash for one that is not on record."""
    values = by_seed(records, figure)
    failed = {record["settings"]["config"]["seed"] for record in records if "failed" in record}
    return [f"{values[seed]:.2f}" if seed in values else "failed" if seed in failed else NONE for seed in seeds]


def draw_pairs(axes: "Axes", places: Sequence[float], columns: Sequence[BySeed], colours: Sequence[str]) -> None:
    """Draws a dot per run, a thin line that joins those of one seed, and a bar at the mean of each column."""
    for seed in sorted(set().union(*columns)):
        line = [column.get(seed, math.nan) for column in columns]
        axes.plot(places, line, color="#BBBBBB", linewidth=0.8, zorder=1)
    half = 0.28 * (places[1] - places[0])
    for place, column, colour in zip(places, columns, colours, strict=True):
        axes.plot([place] * len(column), list(column.values()), "o", color=colour, markersize=4.5, alpha=0.7)
        if column:
            axes.hlines(statistics.mean(column.values()), place - half, place + half, color=colour, linewidth=2.5)
    axes.margins(x=0.08)
