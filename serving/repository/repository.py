"""The models that are served: polls their directories, and keeps memory in step with disk and configuration."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from serving.background import Attempts, BackgroundThread
from serving.errors import Code, ServingError
from serving.options import Options
from serving.repository.config import (
    Labels,
    ModelConfig,
    assign_labels,
    check_platforms,
    version_of,
)
from serving.repository.finder import Finder
from serving.repository.versions import Changes, Lease, Load, ModelVersions
from serving.telemetry.gauges import VersionUse
from serving.wire.requests import ModelStatus, VersionStatus, servable_not_found

_TICK = 0.1  # seconds between looks at what waits to be loaded: TensorFlow Serving's manager has the same
_NEVER = 1e6  # seconds
_LOADING_NICENESS = 10  # of 0 to 19: about a tenth of the processor time of a thread at 0
_INITIAL_LOADS = 4 * (os.cpu_count() or 1)


class Repository:
    """Loads the versions on disk that the configuration asks for, and keeps to it as both change."""

    def __init__(self, load: Load, options: Options) -> None:
        self._load = load
        self._options = options
        self._models: dict[str, ModelVersions] = {}  # also those that are gone, as their versions stay listed
        self._configs: Sequence[ModelConfig] = ()
        self._labels: Labels = {}
        self._changed = Changes(threading.RLock())
        self._configuring = threading.RLock()
        self._stopping = False
        self._finder = Finder(looks_again=options.file_system_poll_wait_seconds > 0)
        # Loads beside models that answer have a low priority. The very first load has not: it starts the runtime's own
        # threads, which would inherit the priority for good.
        self._first_load_threads = ThreadPoolExecutor(_INITIAL_LOADS, "load")
        self._load_threads = ThreadPoolExecutor(max(1, options.num_load_threads), "load", _lower_priority)
        self._has_started = False
        self._unload_threads = ThreadPoolExecutor(max(1, options.num_unload_threads), "unload")
        self._manager = BackgroundThread(self._manage, "versions")
        self._listeners: list[Callable[[], None]] = []
        self._followers: list[Callable[[Sequence[ModelConfig]], None]] = []

    def start(self, configs: Sequence[ModelConfig]) -> None:
        """Loads the configured models, and keeps to the configuration. Raises ServingError if a model does not load."""
        names = self._configure(configs)
        self._manager.start()
        if self._options.file_system_poll_wait_seconds >= 0:
            self._wait_until_available(names, "servable")
        self._has_started = True

    def reload(self, configs: Sequence[ModelConfig], is_awaited: Callable[[], bool] = lambda: True) -> None:
        """Replaces the configuration; returns when each new model has a version, or once nobody awaits it.

        Raises ServingError if the configuration can't be followed, which changes nothing, or if a new model fails.
        """
        self._wait_until_available(self._configure(configs), "model", is_awaited)

    def stop(self, timeout: float = 0) -> bool:
        """Unloads everything; requests in flight have that many seconds. Returns whether all ended."""
        with self._changed:
            models = self._models.values()
            for model in models:
                model.aspire({})
            self._configs = ()
            self._changed.notify_all()
            ended = not self._manager.is_alive() or self._changed.wait_for(
                lambda: all(model.is_empty() for model in models), timeout
            )
            self._stopping = True
            self._changed.notify_all()
        if self._manager.ident is not None:
            self._manager.join()
        self._first_load_threads.shutdown(wait=False, cancel_futures=True)
        self._load_threads.shutdown(wait=False, cancel_futures=True)
        self._unload_threads.shutdown(wait=ended)
        return ended

    def lease(self, name: str, version: int | None = None, label: str | None = None) -> AbstractContextManager[Lease]:
        """Holds a version for the time of a request: the given one, or the latest."""
        number = version if label is None else version_of(self._labels, name, label)
        if name not in self._models:
            raise servable_not_found(name, number)
        return self._models[name].lease(number)

    def knows(self, name: str) -> bool:
        """Whether a model of this name exists or existed."""
        return name in self._models

    def statuses(self, name: str) -> list[VersionStatus]:
        """Every version of a model ever seen, the highest first; empty for an unknown model."""
        return self._models[name].statuses() if name in self._models else []

    def models(self) -> list[ModelStatus]:
        """Every model ever seen, by name."""
        labels = self._labels
        return [ModelStatus(name, self.statuses(name), labels.get(name, {})) for name in sorted(self._models)]

    def uses(self) -> list[VersionUse]:
        """The versions of all models that are wanted or in memory."""
        return [use for model in list(self._models.values()) for use in model.uses()]

    def availability(self) -> dict[str, bool]:
        """Whether each configured model has a version that answers."""
        return {each.name: self._models[each.name].is_available() for each in self._configs}

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls a function, which must not wait, soon after models have come or gone."""
        self._listeners.append(listener)

    def on_configure(self, follower: Callable[[Sequence[ModelConfig]], None]) -> None:
        """Calls a function with each configuration; one for which it raises ServingError is not adopted."""
        self._followers.append(follower)

    def _configure(self, configs: Sequence[ModelConfig]) -> list[str]:
        """Adopts a configuration. Returns the names of the models that are new."""
        with self._configuring:
            before = {each.name for each in self._configs}
            check_platforms(configs, self._configs)
            labels = assign_labels(
                configs, self._labels, self._is_available, self._options.allow_version_labels_for_unavailable_models
            )
            for follow in self._followers:
                follow(configs)
            self._labels = labels
            with self._changed:
                for config in configs:
                    if config.name not in self._models:
                        self._models[config.name] = ModelVersions(config.name, self._load, self._options, self._changed)
                self._configs = tuple(configs)
                self._changed.notify_all()
            if self._options.file_system_poll_wait_seconds >= 0:
                self._poll()
            return [each.name for each in configs if each.name not in before]

    def _is_available(self, name: str, version: int) -> bool:
        return name in self._models and self._models[name].is_available(version)

    def _wait_until_available(
        self, names: Sequence[str], noun: str, is_awaited: Callable[[], bool] = lambda: True
    ) -> None:
        awaited = [self._models[name] for name in names]
        failed: list[tuple[str, VersionStatus]] = []
        with self._changed:
            while is_awaited() and not self._stopping:
                failed = [(model.name, status) for model in awaited for status in model.failed()]
                awaited_still = [model for model in awaited if not model.is_available() and not model.failed()]
                if not awaited_still:
                    break
                self._changed.wait(_TICK)
        failed = [(name, status) for name, status in failed if not self._models[name].is_available()]
        if failed:
            listed = "".join(
                f"{{{{name: {name} version: {status.version}}} due to error: {status.code.name}: {status.message}}}, "
                for name, status in failed
            )
            raise ServingError(Code.UNKNOWN, f"{len(failed)} {noun}(s) did not become available: {{{listed}}}")

    def _manage(self) -> None:
        look, transition, tell = map(Attempts, ("look for versions", "load and unload", "tell which models answer"))
        wait = self._options.file_system_poll_wait_seconds
        next_poll = time.monotonic() + (wait if wait > 0 else _NEVER)
        while not self._stopping:
            seen = self._changed.count
            if time.monotonic() >= next_poll:
                look(self._poll)
                next_poll = time.monotonic() + wait
            transition(self._transition)
            for listener in self._listeners:
                tell(listener)
            with self._changed:
                pause = _NEVER if all(model.is_settled for model in self._models.values()) else _TICK
                self._changed.wait_since(seen, min(pause, max(0, next_poll - time.monotonic())))

    def _transition(self) -> None:
        models = list(self._models.values())
        limit = max(1, self._options.num_load_threads) if self._has_started else _INITIAL_LOADS
        is_serving = self._has_started and any(model.is_available() for model in models)
        threads = self._load_threads if is_serving else self._first_load_threads
        num_loading = sum(model.num_loading() for model in models)
        for model in models:
            if model.is_settled:
                continue
            model.unload(self._unload_threads)
            while num_loading < limit and model.start_load(threads):
                num_loading += 1

    def _poll(self) -> None:
        with self._configuring:
            configured = {each.name for each in self._configs}
            for config in self._configs:
                model = self._models[config.name]
                model.aspire(self._finder.find(config, model.aspired))
            for name, model in list(self._models.items()):
                if name not in configured:
                    model.aspire({})


def _lower_priority() -> None:
    """Lowers the priority of this thread, and of threads that it starts. Only Linux has one for each thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOADING_NICENESS)
