"""The versions of one model in memory: their states, their transitions, their leases."""

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.errors import Code, ServingError
from serving.models.guard import without_path
from serving.models.model import Model
from serving.options import Options
from serving.repository.storage import base_path_of
from serving.telemetry.gauges import VersionUse
from serving.wire.requests import State, VersionStatus, servable_not_found

logger = logging.getLogger("serving")


Load = Callable[[Path], Model]
"""Loads the version in a directory. Raises ServingError if it cannot."""


@dataclass(frozen=True)
class Lease:
    """A version in use: it stays in memory until its lease ends."""

    version: int
    model: Model


@dataclass
class _Version:
    directory: Path
    status: VersionStatus
    model: Model | None = None
    num_leases: int = 0
    num_failures: int = 0
    due: float = 0.0  # when to load it, by the monotonic clock
    busy: bool = False  # a thread loads or unloads it
    gave_up: bool = False


class Changes(threading.Condition):
    """Guards the states of all models, and is notified of each change; `count` is the number of changes so far."""

    count = 0

    def notify_all(self) -> None:
        """Wakes the threads that wait for a change."""
        self.count += 1
        super().notify_all()

    def wait_since(self, count: int, timeout: float) -> None:
        """Waits until there have been more changes than this; the timeout is in seconds."""
        self.wait_for(lambda: self.count != count, timeout)


class ModelVersions:
    """Loads, keeps and unloads the versions of one model. One thread at a time transitions, any thread leases.

    Models may share `changed`.
    """

    def __init__(self, name: str, load: Load, options: Options, changed: Changes) -> None:
        self.name = name
        self._load_model = load
        self._options = options
        self._changed = changed
        self._aspired: Mapping[int, Path] = {}
        self._versions: dict[int, _Version] = {}
        self._available: dict[int, _Version] = {}  # kept apart, as requests ask for it and versions become many
        self.is_settled = True
        """Whether there is nothing to load or unload until something changes."""

    def statuses(self) -> list[VersionStatus]:
        """Every version ever seen, the highest first."""
        with self._changed:
            return sorted((entry.status for entry in self._versions.values()), key=lambda status: -status.version)

    def uses(self) -> list[VersionUse]:
        """The versions that are wanted or in memory. One that has been unloaded is not among them."""
        with self._changed:
            entries = self._versions.values()
            kept = [each for each in entries if each.model or each.gave_up or each.status.state is not State.END]
            return [_use_of(self.name, each) for each in kept]

    def is_available(self, version: int | None = None) -> bool:
        """Whether a version answers requests, or any does."""
        with self._changed:
            return version in self._available or (version is None and bool(self._available))

    def failed(self) -> list[VersionStatus]:
        """The aspired versions, if there are any and none of them will become available."""
        with self._changed:
            ended = [self._versions[version] for version in self._aspired if version in self._versions]
            all_failed = len(ended) == len(self._aspired) and all(entry.gave_up for entry in ended)
            return [entry.status for entry in ended] if all_failed else []

    def num_loading(self) -> int:
        """The number of versions that threads are loading."""
        with self._changed:
            return sum(entry.busy for entry in self._in(State.LOADING).values())

    def is_empty(self) -> bool:
        """Whether nothing is in memory, nor on its way to it."""
        with self._changed:
            return all(entry.model is None and not entry.busy for entry in self._versions.values())

    @contextmanager
    def lease(self, version: int | None = None) -> Iterator[Lease]:
        """Holds a version in memory: the given one, or the highest available one."""
        with self._changed:
            number = max(self._available, default=None) if version is None else version
            if number is None or number not in self._available:
                raise servable_not_found(self.name, version)
            entry = self._available[number]
            assert entry.model is not None
            entry.num_leases += 1
            lease = Lease(number, entry.model)
        try:
            yield lease
        finally:
            with self._changed:
                entry.num_leases -= 1
                if entry.status.state is not State.AVAILABLE:
                    self._notify()

    def aspire(self, directories: Mapping[int, Path]) -> None:
        """Sets the versions that should be served. `start_load` and `unload` bring that about."""
        with self._changed:
            if directories == self._aspired:
                return
            self._aspired = dict(directories)
            self._notify()
            for version, entry in self._versions.items():
                if version in directories:
                    continue
                # A version that was taken away and comes back is new, and gets new attempts.
                entry.gave_up, entry.num_failures = False, 0
                if entry.model is None and not entry.busy and entry.status.state is not State.END:
                    self._set(entry, State.END, entry.status.code, entry.status.message)
            for version, directory in directories.items():
                self._begin(version, directory)

    @property
    def aspired(self) -> Mapping[int, Path]:
        """The versions that should be served."""
        with self._changed:
            return self._aspired

    def start_load(self, threads: Executor) -> bool:
        """Begins to load the highest version that is due. Returns whether there was one."""
        with self._changed:
            if self._options.unload_first and self._has_unwanted():
                return False
            waiting = self._waiting()
            due = [version for version, entry in waiting.items() if not entry.busy and entry.due <= time.monotonic()]
            if not due:
                return False
            entry = waiting[max(due)]
            entry.busy = True
            self._set(entry, State.LOADING, entry.status.code, entry.status.message)
        threads.submit(self._load, entry)
        return True

    def unload(self, threads: Executor) -> None:
        """Retires versions that are no longer aspired, and unloads retired ones that have no lease any more."""
        with self._changed:
            # No change announces a free thread, or the time of the next attempt.
            self.is_settled = all(entry.busy for entry in self._waiting().values())
            self._retire()
            for entry in self._in(State.UNLOADING).values():
                if not entry.num_leases and not entry.busy:
                    entry.busy = True
                    threads.submit(self._close, entry)
            for version, directory in self._aspired.items():  # some may have waited for their own end
                self._begin(version, directory)

    def _begin(self, version: int, directory: Path) -> None:
        entry = self._versions.get(version)
        if entry is None or (entry.status.state is State.END and not entry.gave_up and not entry.busy):
            self._versions[version] = _Version(directory, VersionStatus(version, State.START))
            self._notify()

    def _has_unwanted(self) -> bool:
        return any(
            entry.model is not None or entry.busy
            for version, entry in self._versions.items()
            if version not in self._aspired
        )

    def _retire(self) -> None:
        # AvailabilityPreservingPolicy: while no aspired version is ready, the last one stays. ResourcePreservingPolicy
        # lets it go.
        ready = self._available.keys() & self._aspired.keys()
        for version in sorted(self._available.keys() - self._aspired.keys()):
            if self._options.unload_first or not self._aspired or ready or len(self._available) > 1:
                logger.info("Quiescing servable version {name: %s version: %d}", self.name, version)
                self._set(self._available[version], State.UNLOADING)

    def _load(self, entry: _Version) -> None:
        number = entry.status.version
        try:
            model = self._load_model(entry.directory)
        except ServingError as error:
            self._fail(entry, error)
            return
        except Exception as error:  # of any kind that a broken export makes TensorFlow raise
            logger.exception("Version %d of model %s failed to load", number, self.name)
            self._fail(entry, ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))
            return
        with self._changed:
            wanted, entry.model = number in self._aspired, model
            if wanted:
                entry.busy = False
                self._set(entry, State.AVAILABLE)
        if wanted:
            logger.info("Successfully loaded servable version {name: %s version: %d}", self.name, number)
        else:  # it was taken away meanwhile
            self._close(entry)

    def _fail(self, entry: _Version, error: ServingError) -> None:
        logger.error("Loading servable: {name: %s version: %d} failed: %s", self.name, entry.status.version, error)
        message = without_path(error.message, base_path_of(entry.directory))  # any client may read a status
        with self._changed:
            entry.busy = False
            entry.num_failures += 1
            wanted = entry.status.version in self._aspired
            entry.gave_up = wanted and entry.num_failures > self._options.max_num_load_retries
            entry.due = time.monotonic() + max(0, self._options.load_retry_interval_micros) / 1e6
            self._set(entry, State.END if entry.gave_up or not wanted else State.LOADING, error.code, message)

    def _close(self, entry: _Version) -> None:
        assert entry.model is not None
        try:
            entry.model.close()
        except Exception:  # it is gone all the same, and a stop would wait for it
            logger.exception("Version %d of model %s failed to unload", entry.status.version, self.name)
        with self._changed:
            entry.model, entry.busy = None, False
            self._set(entry, State.END)
        logger.info("Done unloading servable version {name: %s version: %d}", self.name, entry.status.version)
        give_memory_back()

    def _waiting(self) -> dict[int, _Version]:
        return self._in(State.START) | self._in(State.LOADING)

    def _in(self, state: State) -> dict[int, _Version]:
        return {version: entry for version, entry in self._versions.items() if entry.status.state is state}

    def _set(self, entry: _Version, state: State, code: Code = Code.OK, message: str = "") -> None:
        version = entry.status.version
        entry.status = VersionStatus(version, state, code, message)
        if state is State.AVAILABLE:
            self._available[version] = entry
        else:
            self._available.pop(version, None)
        self._notify()

    def _notify(self) -> None:
        self.is_settled = False
        self._changed.notify_all()


def _use_of(name: str, entry: _Version) -> VersionUse:
    if entry.model is None:
        return VersionUse(name, entry.status, entry.num_leases)
    return VersionUse(name, entry.status, entry.num_leases, entry.model.num_bytes, entry.model.batch_fill())


def give_memory_back() -> None:
    """Gives free pages of the heap back to the system, which the C library would keep after a model is unloaded."""
    # The C library of macOS or of Alpine has no such function, and needs none.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
