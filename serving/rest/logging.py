"""The access log of the REST API: what was asked and answered, each with the request's name sent back."""

import time
from collections.abc import Callable

from serving.call import REST
from serving.http.reception import AnswerAtOnce
from serving.http.requests import Request
from serving.http.responses import Response
from serving.http.server import Application
from serving.request_facts import RequestFacts, facts
from serving.rest.routes import parse_route
from serving.telemetry.access_log import AccessLog, Asked, entry_of
from serving.telemetry.request_ids import HEADER, request_id

_HEADER = HEADER.encode()


class LoggedApplication:
    """An application whose answers are written down."""

    def __init__(self, application: Application, log: AccessLog) -> None:
        self.executor = application.executor
        self._application = application
        self._log = log

    def answer(self, request: Request) -> Response:
        """The application's answer, with the request's name."""
        started = time.perf_counter()
        facts.token = request.sender
        return _logged(self._log, request, self._application.answer(request), facts, started)


def logging_at_once(answer: AnswerAtOnce, log: AccessLog) -> AnswerAtOnce:
    """The same for what is answered without a thread."""

    def answer_and_log(request: Request) -> Response | None:
        started = time.perf_counter()
        response = answer(request)
        return None if response is None else _logged(log, request, response, _known(request), started)

    return answer_and_log


def logging_refused(log: AccessLog) -> Callable[[Request, Response, str], Response]:
    """The same for what is no request, or too much of one, with the reason."""

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
    name = request_id(request.headers.get(_HEADER, b"").decode("latin-1"))
    model = facts.model or parse_route(request.method, request.path).spec.name
    asked = Asked(name, REST, request.client, request.method, request.path, model)
    entry = entry_of(asked, response.status, len(response.body), facts, started)
    log.add(entry._replace(reason=reason) if reason else entry)
    return response._replace(headers=b"%bX-Request-Id: %b\r\n" % (response.headers, name.encode()))
