"""Spans of requests for OpenTelemetry, of the extra `tracing`; the environment's OTEL_* variables configure the export.

A span is made when its request has been answered, from the times of the call, so that threads hand on no context.
"""

import logging
import os
import threading
import time
from importlib.metadata import entry_points

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from serving.call import GRPC, Call
from serving.errors import invalid_argument

logger = logging.getLogger("serving")

_SERVICE = "keras-prelu-serve"
_FLUSH_TIMEOUT = 3.0  # seconds
_BETWEEN_COMPLAINTS = 600.0  # seconds
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
# The codes of gRPC for which the server is at fault, by the semantic conventions.
_SERVER_ERRORS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


class Tracing:
    """Exports spans in the background until `stop`. Raises ServingError if the exporter is not installed."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        opentelemetry = logging.getLogger("opentelemetry")
        opentelemetry.propagate, opentelemetry.handlers = False, [_RareComplaints()]
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: _SERVICE}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = _make_exporter()
        if exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("serving")

    def stop(self) -> None:
        """Sends the remaining spans, for up to 3 seconds."""
        flush = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        flush.start()
        flush.join(_FLUSH_TIMEOUT)

    def add(self, call: Call, status: int | str, route: str = "") -> None:
        """Makes the span of a call that has just been answered, with its parts, and sets the call's `trace_id`.

        The span continues the client's trace. The route is the path with placeholders, where the path has one.
        """
        epoch, end = time.time() - time.perf_counter(), time.perf_counter()
        moments = call.arrived, call.started or call.arrived, call.run_started, call.run_ended, end
        arrived, started, run_started, run_ended, ended = [round((epoch + moment) * 1e9) for moment in moments]
        name, attributes = _grpc(call, status) if call.transport == GRPC else _http(call, status, route, self._scheme)
        attributes |= {"model.name": call.model, "model.version": call.version, "model.signature_name": call.signature}
        headers = {field: call.header(field) for field in propagate.get_global_textmap().fields}
        span = self._tracer.start_span(
            name,
            propagate.extract({field: value for field, value in headers.items() if value}),
            SpanKind.SERVER,
            {key: value for key, value in attributes.items() if value != ""},
            start_time=arrived,
        )
        context = span.get_span_context()
        call.trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
        if span.is_recording():
            if attributes["error.type"]:
                span.set_status(StatusCode.ERROR)
            parent = trace.set_span_in_context(span)
            self._tracer.start_span("queue", parent, start_time=arrived).end(started)
            if call.run_ended:
                self._tracer.start_span("decode", parent, start_time=started).end(run_started)
                self._tracer.start_span("run", parent, start_time=run_started).end(run_ended)
                self._tracer.start_span("encode", parent, start_time=run_ended).end(ended)
        span.end(ended)


def _http(call: Call, status: int | str, route: str, scheme: str) -> tuple[str, dict[str, str | int]]:
    method = call.method if call.method in _METHODS else "_OTHER"
    return f"{method.replace('_OTHER', 'HTTP')} {route}".rstrip(), {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "url.scheme": scheme,
        "url.path": call.path,
        "client.address": call.client,
        "error.type": str(status) if int(status) >= 500 else "",
    }


def _grpc(call: Call, status: int | str) -> tuple[str, dict[str, str | int]]:
    method = call.path.lstrip("/")
    return method, {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": status,
        "client.address": call.client,
        "error.type": status if status in _SERVER_ERRORS else "",
    }


class _RareComplaints(logging.Handler):
    """Passes on each message of OpenTelemetry once in ten minutes, without a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        message = str(record.msg)
        if time.monotonic() - self._last.get(message, float("-inf")) >= _BETWEEN_COMPLAINTS:
            self._last[message] = time.monotonic()
            logger.log(record.levelno, "OpenTelemetry: %s", record.getMessage())


def _make_exporter() -> SpanExporter | None:
    """The exporter that the environment names, by the entry points that OpenTelemetry's packages declare."""
    name = asked = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if name == "none":
        return None
    if name == "otlp":
        protocols = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        asked = next(filter(None, map(os.environ.get, protocols)), "http/protobuf")
        name = _PROTOCOLS.get(asked, asked)
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise invalid_argument(
            f"--enable_tracing: no exporter for {asked} is installed; that for gRPC is in "
            "opentelemetry-exporter-otlp-proto-grpc"
        )
    exporter: SpanExporter = next(iter(found)).load()()
    return exporter
