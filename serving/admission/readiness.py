"""Whether the process lives and whether it should be sent requests, as Kubernetes and load balancers ask: two paths."""

import enum
from collections.abc import Callable, Mapping

from serving import background
from serving.errors import Code, ServingError
from serving.http.requests import Request
from serving.http.responses import Response
from serving.wire.json_text import error_body, write

LIVE_PATH = "/healthz"
READY_PATH = "/readyz"


class Phase(enum.Enum):
    """What a server does in the course of its life."""

    LOADING = "loading"
    SERVING = "serving"
    LEAVING = "leaving"
    """It still answers, and wants nothing new to be sent."""
    DRAINING = "draining"
    """It answers what it has, and refuses the rest."""


class Readiness:
    """Follows a server through its phases, and answers without a thread what can be answered so.

    `availability` says of each configured model whether a version of it answers. Where not everybody may know which
    models there are, `names_models` is false.
    """

    def __init__(self, availability: Callable[[], Mapping[str, bool]], names_models: bool = True) -> None:
        self.phase = Phase.LOADING
        self._availability = availability
        self._names_models = names_models

    def answer(self, request: Request) -> Response | None:
        """The answer to a probe, or to what cannot be answered in this phase; None for all else."""
        if request.method in ("GET", "HEAD"):
            if request.path == LIVE_PATH:
                return Response(200, write({"alive": True}))
            if request.path == READY_PATH:
                return self._readiness()
        if self.phase is Phase.DRAINING:
            return _unavailable("The server is shutting down.", closes=True)
        # What a model is like may be asked while it is loaded; to run it may not, as behind a port that is closed.
        if self.phase is Phase.LOADING and request.method == "POST":
            return _unavailable("The models are still being loaded.")
        return None

    def _readiness(self) -> Response:
        missing = [name for name, available in self._availability().items() if not available]
        dead_threads = background.dead()
        ready = self.phase is Phase.SERVING and not missing and not dead_threads
        body: dict[str, object] = {"ready": ready, "phase": self.phase.value}
        if self._names_models:
            body["models_without_a_version"] = missing
        if dead_threads:
            body["dead_threads"] = dead_threads
        return Response(200 if ready else 503, write(body))


def _unavailable(message: str, closes: bool = False) -> Response:
    return Response(503, error_body(ServingError(Code.UNAVAILABLE, message)), closes=closes)
