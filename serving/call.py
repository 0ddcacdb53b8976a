"""One request on its way through the server, over either transport."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

GRPC, REST = "GRPC", "REST"


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """A request: its client, its aim, its end, and the facts that become known of it.

    A transport makes it and passes it down to the run; metrics, the access log and traces read it at the end. Times are
    in seconds, by `time.perf_counter`; 0 stands for a time that has not come.
    """

    transport: str = REST
    method: str = ""
    """The verb of HTTP, or the last part of a gRPC method."""
    path: str = ""
    """Without the query; of gRPC the whole method."""
    client: str = ""
    """The client's address."""
    header: Callable[[str], str] = lambda name: ""
    """The value of a header, or of gRPC's metadata, by its name in lower case; empty where there is none."""
    request_id: str = ""
    timeout: float | None = None
    """From the arrival to the end of the run; None for no end."""
    is_cancelled: Callable[[], bool] = lambda: False
    """Whether the client has gone away meanwhile."""

    token: str = ""
    """The name of the token that authorized it."""
    model: str = ""
    """Only of models that exist: clients invent names, and series of metrics stay for ever."""
    action: str = ""
    """The method's name in metrics: "predict" over REST, "Predict" over gRPC; empty where no model is asked to run."""
    version: str = ""
    signature: str = ""
    trace_id: str = ""

    arrived: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    """When a thread took it."""
    run_started: float = 0.0
    run_ended: float = 0.0

    def remaining(self) -> float | None:
        """Seconds left, 0 at least; None for no end."""
        return None if self.timeout is None else max(0.0, self.arrived + self.timeout - time.perf_counter())

    @property
    def run_time(self) -> float:
        """Seconds of the run; 0 if none has succeeded."""
        return self.run_ended - self.run_started if self.run_ended else 0.0

    @property
    def queue_time(self) -> float:
        """Seconds that it waited for a thread."""
        return self.started - self.arrived if self.started else 0.0
