"""Counters and histograms with labels, cheap enough to be fed by every request."""

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

Labels = tuple[str, ...]

MOST_SERIES = 1000
"""Series of a metric. Names of models come from clients, who could otherwise fill the memory with them."""
OTHER = "(other)"


class Counter:
    """Counts something for each combination of labels."""

    kind = "counter"

    def __init__(self, name: str, meaning: str, label_names: Sequence[str]) -> None:
        self.name = name
        self.meaning = meaning
        self.label_names = tuple(label_names)
        self._values: dict[Labels, int] = {}
        self._lock = threading.Lock()

    def add(self, labels: Labels, amount: int = 1) -> None:
        """Counts."""
        with self._lock:
            values = self._values
            if labels not in values and len(values) >= MOST_SERIES:
                labels = (OTHER,) * len(labels)
            values[labels] = values.get(labels, 0) + amount

    def values(self) -> Mapping[Labels, int]:
        """The counts so far."""
        with self._lock:
            return dict(self._values)


class Distribution:
    """How many values fell below each limit of a histogram, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, num_limits: int) -> None:
        self.counts = [0] * (num_limits + 1)
        self.total = 0.0

    def cumulative(self) -> list[int]:
        """How many values are at most each limit; the last is all of them."""
        return list(accumulate(self.counts))

    def plus(self, other: "Distribution") -> "Distribution":
        """Both together."""
        both = Distribution(len(self.counts) - 1)
        both.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        both.total = self.total + other.total
        return both


class Histogram:
    """Sorts values into buckets for each combination of labels. A value at a limit lies below it."""

    kind = "histogram"

    def __init__(self, name: str, meaning: str, label_names: Sequence[str], limits: Sequence[float]) -> None:
        self.name = name
        self.meaning = meaning
        self.label_names = tuple(label_names)
        self.limits = list(limits)
        self._values: dict[Labels, Distribution] = {}
        self._lock = threading.Lock()

    def add(self, labels: Labels, value: float) -> None:
        """Sorts a value in."""
        bucket = bisect_left(self.limits, value)
        with self._lock:
            distribution = self._values.get(labels)
            if distribution is None:
                distribution = self._new(labels)
            distribution.counts[bucket] += 1
            distribution.total += value

    def values(self) -> Mapping[Labels, Distribution]:
        """The distributions so far."""
        with self._lock:
            empty = Distribution(len(self.limits))
            return {labels: each.plus(empty) for labels, each in self._values.items()}

    def _new(self, labels: Labels) -> Distribution:
        if len(self._values) >= MOST_SERIES:
            labels = (OTHER,) * len(labels)
        return self._values.setdefault(labels, Distribution(len(self.limits)))


def exponential(first: float, growth: float, number: int) -> list[float]:
    """The limits of buckets that grow by a factor (monitoring::Buckets::Exponential)."""
    return [first * growth**power for power in range(number)]
