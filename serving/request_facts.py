"""What becomes known of a request on its way, in the thread that answers it: for limits, the access log and traces."""

import threading
from typing import Any

from serving.call import Call


class RequestFacts(threading.local):
    """Facts of the request that this thread answers. Times are in seconds."""

    token = model = version = signature = trace_id = ""
    queue_time = run_time = 0.0
    run_ended = 0.0
    """By the performance counter; 0 where no model ran."""

    def begin(self, queue_time: float) -> None:
        """Forgets the thread's last request."""
        self.token = self.model = self.version = self.signature = self.trace_id = ""
        self.queue_time, self.run_time, self.run_ended = queue_time, 0.0, 0.0

    def call(self, started: float, **known: Any) -> Call:
        """The call that this thread answers since `started`, by the performance counter."""
        return Call(
            arrived=started - self.queue_time,
            started=started,
            token=self.token,
            version=self.version,
            signature=self.signature,
            trace_id=self.trace_id,
            run_started=self.run_ended - self.run_time,
            run_ended=self.run_ended,
            **known,
        )

    def note(self, call: Call) -> None:
        """Keeps what became known of a call."""
        self.model, self.version, self.signature = call.model, call.version, call.signature
        self.run_time, self.run_ended = call.run_time, call.run_ended


facts = RequestFacts()
"""Of the current thread."""
