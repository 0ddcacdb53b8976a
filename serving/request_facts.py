"""What becomes known of a request on its way, in the thread that answers it: for limits and for the access log."""

import threading


class RequestFacts(threading.local):
    """Facts of the request that this thread answers. Times are in seconds."""

    token = model = version = signature = ""
    queue_time = run_time = 0.0

    def begin(self, queue_time: float) -> None:
        """Forgets the thread's last request."""
        self.token = self.model = self.version = self.signature = ""
        self.queue_time, self.run_time = queue_time, 0.0


facts = RequestFacts()
"""Of the current thread."""
