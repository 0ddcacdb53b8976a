"""The REST API: a request, and the response to it."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Executor

from serving.api.service import Service
from serving.call import Call
from serving.errors import Code, ServingError
from serving.http.requests import Request
from serving.http.responses import Response
from serving.rest.bodies import ExamplesBody, read_examples, read_predict, write_answer, write_prediction
from serving.rest.compression import compressed_answer
from serving.rest.descriptions import describe, version_header
from serving.rest.openapi import OPENAPI_PATH, describe_api
from serving.rest.request_log import log_answer, log_prediction
from serving.rest.routes import Route, is_api, parse_route
from serving.telemetry.metrics import REST, Caller
from serving.telemetry.pages import PrometheusPage, tensorflow_page
from serving.wire.hints import helpful_text
from serving.wire.json_text import error_body, write
from serving.wire.requests import Classification, ModelSpec, Regression
from serving.wire.signatures import Signature

logger = logging.getLogger("serving")

Answer = tuple[ModelSpec, bytes, str]
"""The model that answered, the body, and its media type."""

STATUSES = {  # ToHTTPStatusCode in http_server.cc
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INTERNAL: 500,
    Code.DATA_LOSS: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
METRICS_PATH = "/metrics"

_NOT_FOUND_PAGE = (  # libevent's, for paths that no handler takes
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
)


class RestApplication:
    """TensorFlow Serving's REST API over a service, for an HttpServer that runs it in threads of the executor.

    The timeout of a run is in seconds. The service's metrics are under `METRICS_PATH`, and under TensorFlow Serving's
    names where `monitoring_path` says. Answers that are to be messages hold typed fields, or tensor_content where
    `as_content` says so. Its OpenAPI document says whether it `needs_token`; to ask for one is the server's part.
    """

    def __init__(
        self,
        service: Service,
        executor: Executor,
        timeout: float | None,
        *,
        monitoring_path: str = "",
        as_content: bool = False,
        needs_token: bool = False,
    ) -> None:
        self.executor = executor
        self._service = service
        self._timeout = timeout
        self._as_content = as_content
        self._needs_token = needs_token
        self._metrics = service.metrics
        self._log = service.request_log
        self._prometheus = PrometheusPage(self._metrics)
        self._monitoring_path = monitoring_path

    def answer(self, request: Request) -> Response:
        """The response to a request; whatever fails is told in it."""
        try:
            return compressed_answer(request, self._respond(request))
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            error = ServingError(Code.INTERNAL, "Internal error; the server's log has more.")
            return Response(500, error_body(error))

    def _respond(self, request: Request) -> Response:
        if is_api(request.path):
            return self._answer_api(request)
        if self._monitoring_path and request.path == self._monitoring_path and request.method == "GET":
            return Response(200, tensorflow_page(self._metrics), "text/plain")
        if request.path == METRICS_PATH and request.method == "GET":
            page, content_type = self._prometheus.write(_header(request, b"accept"))
            return Response(200, page, content_type)
        if request.path == OPENAPI_PATH and request.method == "GET":
            return Response(200, write(describe_api(self._service, self._needs_token)))
        return Response(404, _NOT_FOUND_PAGE, "text/html")

    def _answer_api(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            origin = _header(request, b"origin")
            return Response(200 if "http://" in origin or "https://" in origin else 400, b"")
        try:
            route = parse_route(request.method, request.path)
            return self._infer(route, request) if route.infers else describe(self._service, route, request.query)
        except ServingError as error:
            text = helpful_text(error, request.path.partition(":")[0])
            return Response(STATUSES[error.code], error_body(ServingError(error.code, text)))

    def _infer(self, route: Route, request: Request) -> Response:
        started = time.perf_counter()
        # Clients make names up, and series that were counted once stay.
        name = route.spec.name if self._service.repository.knows(route.spec.name) else ""
        caller, code = Caller(name, route.action, REST), Code.INTERNAL
        try:
            spec, body, content_type = self._METHODS[route.action](self, route.spec, request)
            caller, code = caller._replace(version=str(spec.version), signature=spec.signature_name), Code.OK
            return Response(200, body, content_type, version_header(spec.version))
        except ServingError as error:
            code = error.code
            raise
        finally:
            self._metrics.record_request(caller, code, time.perf_counter() - started)

    def _predict(self, spec: ModelSpec, request: Request) -> Answer:
        body = read_predict(spec, request)
        with self._service.lease(body.spec, self._call(request)) as model:
            prediction = model.predict(body.decode(model.signatures))
        written = write_prediction(prediction, body, self._as_content)
        log_prediction(self._log, body, prediction, self._as_content)
        return prediction.spec, written, body.answer_type

    def _classify(self, spec: ModelSpec, request: Request) -> Answer:
        body = read_examples("classify", spec, request, self._signatures)
        with self._service.lease(body.spec, self._call(request)) as model:
            answer = model.classify(body.spec.signature_name, body.serialized)
        return self._written(answer, body)

    def _regress(self, spec: ModelSpec, request: Request) -> Answer:
        body = read_examples("regress", spec, request, self._signatures)
        with self._service.lease(body.spec, self._call(request)) as model:
            answer = model.regress(body.spec.signature_name, body.serialized)
        return self._written(answer, body)

    _METHODS = {"predict": _predict, "classify": _classify, "regress": _regress}  # noqa: RUF012  never changed

    def _written(self, answer: Classification | Regression, body: ExamplesBody) -> Answer:
        written = write_answer(answer, body)
        log_answer(self._log, body, answer)
        return answer.spec, written, body.answer_type

    def _signatures(self, spec: ModelSpec) -> Mapping[str, Signature]:
        with self._service.lease(spec, Call()) as model:
            return model.signatures

    def _call(self, request: Request) -> Call:
        return Call(timeout=self._timeout, is_cancelled=lambda: request.cancelled)


def _header(request: Request, name: bytes) -> str:
    return request.headers.get(name, b"").decode("latin-1")
