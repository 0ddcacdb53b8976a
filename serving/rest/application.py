"""The REST API: a request, and the response to it."""

import logging
from concurrent.futures import Executor

from serving.api.service import Service
from serving.call import REST, Call
from serving.errors import Code, ServingError, invalid_argument
from serving.http.requests import Request
from serving.http.responses import Response
from serving.options import Options
from serving.request_facts import facts
from serving.rest import responses
from serving.rest.content import compressed
from serving.rest.description import OPENAPI_PATH, describe, describe_api
from serving.rest.handlers import Handlers
from serving.rest.responses import STATUSES
from serving.rest.routes import Route, parse_route
from serving.wire.json_text import error_body
from serving.wire.signatures import helpful_text

logger = logging.getLogger("serving")

METRICS_PATH = "/metrics"

_NOT_FOUND_PAGE = (  # libevent's, for paths that no handler takes
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
)


class RestApplication:
    """TensorFlow Serving's REST API over a service, for an HttpServer that runs it in threads of the executor.

    The timeout of a run is in seconds. The service's metrics are under `METRICS_PATH`, and under TensorFlow Serving's
    names where `monitoring_path` says. Its OpenAPI document says whether it `needs_token`; to ask for one is the
    server's part.
    """

    def __init__(
        self,
        service: Service,
        executor: Executor,
        timeout: float | None,
        *,
        monitoring_path: str = "",
        needs_token: bool = False,
        options: Options | None = None,
    ) -> None:
        self.executor = executor
        self._service = service
        self._timeout = timeout
        self._document = describe_api(needs_token)
        self._metrics = service.metrics
        self._handlers = Handlers(service, options or Options())
        self._monitoring_path = monitoring_path

    def answer(self, request: Request) -> Response:
        """The response to a request; whatever fails is told in it."""
        try:
            return _compressed(request, self._respond(request))
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            error = ServingError(Code.INTERNAL, "Internal error; the server's log has more.")
            return Response(500, error_body(error))

    def _respond(self, request: Request) -> Response:
        route = parse_route(request.method, request.path, request.query)
        if route.is_api:
            return self._answer_api(route, request)
        if self._monitoring_path and request.path == self._monitoring_path and request.method == "GET":
            return Response(200, self._metrics.tensorflow_page(), "text/plain")
        if request.path == METRICS_PATH and request.method == "GET":
            page, content_type = self._metrics.prometheus_page(_header(request, b"accept"))
            return Response(200, page, content_type)
        if request.path == OPENAPI_PATH and request.method == "GET":
            return Response(200, self._document)
        return Response(404, _NOT_FOUND_PAGE, "text/html")

    def _answer_api(self, route: Route, request: Request) -> Response:
        if request.method == "OPTIONS":
            origin = _header(request, b"origin")
            return Response(200 if "http://" in origin or "https://" in origin else 400, b"")
        try:
            if route.error:
                raise invalid_argument(route.error)
            return _sent(self._infer(route, request) if route.infers else describe(self._service, route, Call()))
        except ServingError as error:
            text = helpful_text(error, request.path.partition(":")[0])
            return Response(STATUSES[error.code], error_body(ServingError(error.code, text)))

    def _infer(self, route: Route, request: Request) -> responses.Response:
        code = Code.INTERNAL
        call = Call(
            transport=REST,
            action=route.action,
            header=lambda name: _header(request, name.encode()),
            timeout=self._timeout,
            is_cancelled=lambda: request.cancelled,
        )
        # Clients make names up, and series that were counted once stay.
        if self._service.repository.knows(route.spec.name):
            call.model = route.spec.name
        try:
            response = self._handlers.infer(route, request.body, call)
            code = Code.OK
            return response
        except ServingError as error:
            code = error.code
            raise
        finally:
            facts.note(call)
            self._metrics.record_request(call, code)


def _sent(response: responses.Response) -> Response:
    headers = b"".join(b"%b: %b\r\n" % header for header in response.headers)
    return Response(response.status, response.body, response.content_type, headers)


def _header(request: Request, name: bytes) -> str:
    return request.headers.get(name, b"").decode("latin-1")


def _compressed(request: Request, response: Response) -> Response:
    plain = responses.Response(response.status, response.body, response.content_type)
    shorter = compressed(plain, _header(request, b"accept-encoding"))
    headers = response.headers + b"".join(b"%b: %b\r\n" % header for header in shorter.headers)
    return response._replace(body=shorter.body, headers=headers)
