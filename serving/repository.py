"""The models that are served: polls their directories and keeps memory in step with disk."""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from serving.storage import find_versions, latest
from serving.versions import Lease, LoadModel, ModelVersions, VersionStatus, servable_not_found

logger = logging.getLogger("serving")

_TICK = 0.1  # seconds between looks at the versions that are to go: TensorFlow Serving's manager has the same


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve: its name, and the directory that holds its versions."""

    name: str
    base_path: Path


class Repository:
    """Versions on disk -> models in memory."""

    def __init__(self, configs: Sequence[ModelConfig], load: LoadModel, poll_wait_seconds: float = 1) -> None:
        self._models = {each.name: ModelVersions(each.name, each.base_path, load) for each in configs}
        self._poll_wait_seconds = poll_wait_seconds
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll_for_ever, name="versions", daemon=True)
        self._complaints: dict[str, str] = {}

    def start(self) -> None:
        """Loads what is there, then keeps polling. A wait of 0 polls once, a negative one never."""
        if self._poll_wait_seconds < 0:
            return
        self._poll()
        if self._poll_wait_seconds > 0:
            self._poller.start()

    def stop(self, timeout: float = 0) -> bool:
        """Unloads everything, giving requests in flight so many seconds. Returns whether all ended."""
        self._stopping.set()
        if self._poller.is_alive():
            self._poller.join()
        deadline = time.monotonic() + timeout
        for model in self._models.values():
            model.aspire({})
        ended = [model.close_drained(deadline - time.monotonic()) for model in self._models.values()]
        return all(ended)

    def lease(self, name: str, version: int | None = None) -> AbstractContextManager[Lease]:
        """Holds a version for the time of a request: the one asked for, or the latest."""
        if name not in self._models:
            raise servable_not_found(name, version)
        return self._models[name].lease(version)

    def statuses(self, name: str) -> list[VersionStatus]:
        """Every version of a model ever seen, the highest first; empty for an unknown model."""
        return self._models[name].statuses() if name in self._models else []

    def _poll_for_ever(self) -> None:
        next_poll = time.monotonic() + self._poll_wait_seconds
        while not self._stopping.wait(min(_TICK, self._poll_wait_seconds)):
            if time.monotonic() >= next_poll:
                self._poll()
                next_poll = time.monotonic() + self._poll_wait_seconds
            for model in self._models.values():
                model.close_drained()

    def _poll(self) -> None:
        for model in self._models.values():
            try:
                found = find_versions(model.base_path)
            except OSError as error:  # a base path that went away says nothing about the versions
                self._complain(model, f"Could not read base path {model.base_path}: {error.strerror}")
                continue
            missing = f"No versions of servable {model.name} found under base path {model.base_path}"
            self._complain(model, "" if found else missing)
            model.aspire({version: found[version] for version in latest(found)})

    def _complain(self, model: ModelVersions, complaint: str) -> None:
        # Once a change, not once a poll.
        if complaint and complaint != self._complaints.get(model.name):
            logger.warning("%s", complaint)
        self._complaints[model.name] = complaint
