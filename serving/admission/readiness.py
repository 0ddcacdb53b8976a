"""Liveness and readiness of the server, for the probes of Kubernetes and of load balancers."""

import enum
from collections.abc import Callable, Mapping

from serving import background

LIVE_PATH = "/healthz"
READY_PATH = "/readyz"


class Phase(enum.Enum):
    """The phases of a server's life."""

    LOADING = "loading"
    SERVING = "serving"
    LEAVING = "leaving"
    """It still answers, and wants nothing new to be sent."""
    DRAINING = "draining"
    """It answers what it has, and refuses the rest."""


class Readiness:
    """The phase of a server and the models that have no version to answer with.

    `availability` returns for each configured model whether a version of it answers. `names_models` is false if not
    everybody may know the names of the models.
    """

    def __init__(self, availability: Callable[[], Mapping[str, bool]], names_models: bool) -> None:
        self.phase = Phase.LOADING
        self._availability = availability
        self._names_models = names_models

    def report(self) -> tuple[bool, dict[str, object]]:
        """Whether the server should be sent requests, and the body of the probe's response."""
        missing = [name for name, available in self._availability().items() if not available]
        dead_threads = background.dead()
        ready = self.phase is Phase.SERVING and not missing and not dead_threads
        body: dict[str, object] = {"ready": ready, "phase": self.phase.value}
        if self._names_models:
            body["models_without_a_version"] = missing
        if dead_threads:
            body["dead_threads"] = dead_threads
        return ready, body
