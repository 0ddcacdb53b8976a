"""The versions of one model in memory: their states, their transitions, and who uses them."""

import enum
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.errors import Code, ServingError
from serving.model import Model

logger = logging.getLogger("serving")

LoadModel = Callable[[Path], Model]


class State(enum.IntEnum):
    """ModelVersionStatus.State of apis/get_model_status.proto, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """How a version is, and why it ended if an error ended it."""

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


def servable_not_found(name: str, version: int | None) -> ServingError:
    """The error that TensorFlow Serving's manager gives; its readiness probe looks for "Servable" in it."""
    which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return ServingError(Code.NOT_FOUND, f"Servable not found for request: {which}")


@dataclass
class _Loaded:
    model: Model
    num_leases: int = 0


@dataclass(frozen=True)
class Lease:
    """A version in use: it stays in memory until its lease ends."""

    version: int
    model: Model


class ModelVersions:
    """Loads, keeps and unloads the versions of one model. One thread transitions, any thread leases."""

    def __init__(self, name: str, base_path: Path, load: LoadModel) -> None:
        self.name = name
        self.base_path = base_path
        self._load_model = load
        self._changed = threading.Condition(threading.RLock())
        self._statuses: dict[int, VersionStatus] = {}
        self._available: dict[int, _Loaded] = {}
        self._draining: dict[int, _Loaded] = {}
        self._failed: set[int] = set()

    def statuses(self) -> list[VersionStatus]:
        """Every version ever seen, the highest first."""
        with self._changed:
            return sorted(self._statuses.values(), key=lambda status: -status.version)

    @contextmanager
    def lease(self, version: int | None = None) -> Iterator[Lease]:
        """Holds a version in memory: the one asked for, or the highest available one."""
        with self._changed:
            if version not in self._available and (version is not None or not self._available):
                raise servable_not_found(self.name, version)
            number = max(self._available) if version is None else version
            loaded = self._available[number]
            loaded.num_leases += 1
        try:
            yield Lease(number, loaded.model)
        finally:
            with self._changed:
                loaded.num_leases -= 1
                self._changed.notify_all()

    def aspire(self, directories: Mapping[int, Path]) -> None:
        """Moves to these versions: loads what is new, then unloads what is no longer asked for.

        The order is AvailabilityPreservingPolicy's: while no version asked for is ready, the last one stays.
        """
        # A failed version that was taken away and comes back is a new one, and deserves a new attempt.
        self._failed &= directories.keys()
        known = self._available.keys() | self._draining.keys() | self._failed
        for version in sorted(directories.keys() - known, reverse=True):
            self._load(version, directories[version])
        for version in sorted(self._available.keys() - directories.keys()):
            ready = self._available.keys() & directories.keys()
            if not directories or ready or len(self._available) > 1:
                self._retire(version)

    def close_drained(self, timeout: float = 0) -> bool:
        """Unloads the retired versions that nobody uses any more. Returns whether none is left."""
        with self._changed:
            self._changed.wait_for(lambda: not any(e.num_leases for e in self._draining.values()), timeout)
            drained = [version for version, entry in self._draining.items() if not entry.num_leases]
        for version in drained:
            self._draining[version].model.close()
            self._set(VersionStatus(version, State.END))
            with self._changed:
                del self._draining[version]
        return not self._draining

    def _load(self, version: int, directory: Path) -> None:
        self._set(VersionStatus(version, State.START))
        self._set(VersionStatus(version, State.LOADING))
        try:
            model = self._load_model(directory)
        except ServingError as error:
            self._fail(version, error)
            return
        except Exception as error:  # whatever a broken export makes TensorFlow raise, the others keep serving
            logger.exception("Version %d of model %s failed to load", version, self.name)
            self._fail(version, ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))
            return
        with self._changed:
            self._available[version] = _Loaded(model)
            self._set(VersionStatus(version, State.AVAILABLE))
        logger.info("Successfully loaded servable version {name: %s version: %d}", self.name, version)

    def _fail(self, version: int, error: ServingError) -> None:
        logger.error("Version %d of model %s failed to load: %s", version, self.name, error)
        # Any client may read a status; where the models lie is the operator's matter.
        message = error.message.replace(str(self.base_path), "<model_base_path>")
        self._failed.add(version)
        self._set(VersionStatus(version, State.END, error.code, message))

    def _retire(self, version: int) -> None:
        with self._changed:
            self._draining[version] = self._available.pop(version)
            self._set(VersionStatus(version, State.UNLOADING))
        logger.info("Unloading servable version {name: %s version: %d}", self.name, version)

    def _set(self, status: VersionStatus) -> None:
        with self._changed:
            self._statuses[status.version] = status
            self._changed.notify_all()
