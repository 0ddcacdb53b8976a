"""Requests that wait for a thread: not too many, and not for too long. Who is refused may ask another server."""

from dataclasses import dataclass

from serving.admission.threads import RequestThreads
from serving.errors import Code, ServingError
from serving.http.requests import Request
from serving.http.responses import Response
from serving.http.server import Application
from serving.request_facts import facts
from serving.rest.responses import STATUSES
from serving.wire.json_text import error_body

_RETRY_AFTER = b"Retry-After: 1\r\n"


@dataclass(frozen=True)
class QueueLimits:
    """How many requests of a transport may wait, and for how many seconds; 0 stands for no limit."""

    size: int = 0
    time: float = 0.0

    def check_size(self, threads: RequestThreads) -> None:
        """Raises ServingError where a request that comes now would be one too many."""
        if self.size and threads.num_queued >= self.size:
            raise ServingError(Code.RESOURCE_EXHAUSTED, f"{self.size} requests wait already. Try again later.")

    def check_time(self) -> None:
        """Raises ServingError where the request of this thread has waited for too long."""
        if self.time and facts.queue_time > self.time:
            raise ServingError(
                Code.UNAVAILABLE, f"The request waited for more than {self.time * 1000:g} ms. Try again later."
            )


class TimelyApplication:
    """An application that answers no request that has waited for too long."""

    def __init__(self, application: Application, limits: QueueLimits) -> None:
        self.executor = application.executor
        self._application = application
        self._limits = limits

    def answer(self, request: Request) -> Response:
        """The application's answer, or why there is none."""
        try:
            self._limits.check_time()
        except ServingError as error:
            return busy(error)
        return self._application.answer(request)


def busy(error: ServingError) -> Response:
    """The answer of a server that has too much to do."""
    return Response(STATUSES[error.code], error_body(error), headers=_RETRY_AFTER)
