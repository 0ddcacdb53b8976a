"""What becomes known of a request on its way, in the thread that answers it: for limits, the access log and traces."""

import threading


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


facts = RequestFacts()
"""Of the current thread."""
