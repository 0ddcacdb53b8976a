"""The state of a server at the moment in which somebody reads its metrics: requests, threads, versions.

Requests pay nothing for these gauges: a read asks the repository and the pools of threads, which know the numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.wire.requests import State, VersionStatus

_PREFIX = "tensorflow_serving_"
_VERSION = ("model_name", "version")


class VersionUse(NamedTuple):
    """A version and the requests that hold it.

    `num_bytes` is None unless it is in memory, and `batch_fill` before its first batch.
    """

    model: str
    status: VersionStatus
    num_requests: int
    num_bytes: int | None = None
    batch_fill: float | None = None


class Threads(Protocol):
    """The threads that answer the requests of a transport."""

    @property
    def num_threads(self) -> int:
        """The most that there may be."""

    @property
    def num_busy(self) -> int:
        """The number that answer a request."""

    @property
    def num_queued(self) -> int:
        """The number of requests that wait for one."""


class Gauges(Collector):
    """Asks for the versions, and the threads of each transport, whenever the metrics are read."""

    def __init__(self, versions: Callable[[], Sequence[VersionUse]]) -> None:
        self._versions = versions
        self._threads: dict[str, Threads] = {}

    def watch(self, transport: str, threads: Threads) -> None:
        """Shows the threads of a transport from now on."""
        self._threads[transport] = threads

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The current gauges."""
        yield from self._of_threads()
        yield from _of_versions(self._versions())

    def _of_threads(self) -> Iterator[GaugeMetricFamily]:
        pools = [((transport,), pool) for transport, pool in self._threads.items()]
        label = ("transport",)
        meaning = "Requests that wait for a thread"
        yield _gauge("requests_waiting", meaning, label, [(key, pool.num_queued) for key, pool in pools])
        yield _gauge("threads", "Threads that may answer requests", label, [(k, pool.num_threads) for k, pool in pools])
        busy = [(key, pool.num_busy) for key, pool in pools]
        yield _gauge("threads_busy", "Threads that answer a request", label, busy)
        shares = [(key, num_busy / pool.num_threads) for (key, pool), (_, num_busy) in zip(pools, busy, strict=True)]
        yield _gauge("threads_busy_ratio", "Busy threads over all that there may be, 0 to 1", label, shares)


def _of_versions(uses: Sequence[VersionUse]) -> Iterator[GaugeMetricFamily]:
    named = [((use.model, str(use.status.version)), use) for use in uses]
    loaded = [(key, use) for key, use in named if use.num_bytes is not None]
    meaning = "Requests that a version is answering; with batching, those that wait for a batch, too"
    yield _gauge("requests_in_flight", meaning, _VERSION, [(key, use.num_requests) for key, use in loaded])
    meaning = "Bytes on disk of the files that a version was loaded from: its graph and variables, or its TFLite file"
    yield _gauge("model_loaded_bytes", meaning, _VERSION, [(key, use.num_bytes or 0) for key, use in loaded])
    meaning = "Rows of a version's last batch over the most that a batch may have, 0 to 1"
    fills = [(key, use.batch_fill) for key, use in named if use.batch_fill is not None]
    yield _gauge("batching_session_batch_fill_ratio", meaning, _VERSION, fills)
    meaning = "1 for the state that a version is in, 0 for the others; END is a version that failed to load"
    states = [((*key, state.name), use.status.state is state) for key, use in named for state in State]
    yield _gauge("model_version_state", meaning, (*_VERSION, "state"), states)


def _gauge(
    name: str, meaning: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(_PREFIX + name, meaning, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
