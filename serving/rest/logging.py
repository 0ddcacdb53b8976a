"""The access log of the REST API: a line per request, and the request id in the response."""

import time
from collections.abc import Callable

from serving.call import REST
from serving.http.reception import AnswerAtOnce
from serving.http.requests import Request
from serving.http.responses import Response
from serving.http.server import Application
from serving.request_facts import RequestFacts, facts
from serving.rest.routes import parse_route
from serving.telemetry.access_log import REQUEST_ID_HEADER, AccessLog, request_id

_HEADER = REQUEST_ID_HEADER.encode()


class LoggedApplication:
    """An application whose answers are logged."""

    def __init__(self, application: Application, log: AccessLog) -> None:
        self.executor = application.executor
        self._application = application
        self._log = log

    def answer(self, request: Request) -> Response:
        """The application's answer, with the request id."""
        started = time.perf_counter()
        facts.token = request.sender
        return _logged(self._log, request, self._application.answer(request), facts, started)


def logging_at_once(answer: AnswerAtOnce, log: AccessLog) -> AnswerAtOnce:
    """The same for requests that are answered without a thread."""

    def answer_and_log(request: Request) -> Response | None:
        started = time.perf_counter()
        response = answer(request)
        return None if response is None else _logged(log, request, response, _known(request), started)

    return answer_and_log


def logging_refused(log: AccessLog) -> Callable[[Request, Response, str], Response]:
    """The same for requests that are refused before they are whole, with the reason."""

    def log_refused(request: Request, response: Response, reason: str) -> Response:
        return _logged(log, request, response, _known(request), time.perf_counter(), reason)

    return log_refused


def _known(request: Request) -> RequestFacts:
    facts = RequestFacts()
    facts.token = request.sender
    return facts


def _logged(
    log: AccessLog, request: Request, response: Response, facts: RequestFacts, started: float, reason: str = ""
) -> Response:
    call = facts.call(
        started,
        transport=REST,
        method=request.method,
        path=request.path,
        client=request.client,
        request_id=request_id(request.headers.get(_HEADER, b"").decode("latin-1")),
        model=facts.model or parse_route(request.method, request.path).spec.name,
    )
    log.add(call, response.status, len(response.body), reason)
    return response._replace(headers=b"%bX-Request-Id: %b\r\n" % (response.headers, call.request_id.encode()))
