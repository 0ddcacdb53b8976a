"""Spans of requests for OpenTelemetry, of the extra `tracing`: where they go, the environment's OTEL_* variables say.

A span is made when its request is answered, of times that are known by then, so that nothing is carried along.
"""

import logging
import os
import threading
import time
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from serving.errors import invalid_argument
from serving.request_facts import RequestFacts, facts
from serving.telemetry.endings import Ending, Lookup

logger = logging.getLogger("serving")

_SERVICE = "keras-prelu-serve"
_LONGEST_FLUSH = 3.0  # seconds at the end, where nobody takes the spans
_BETWEEN_COMPLAINTS = 600.0  # seconds
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


class Tracing:
    """Exports spans in the background until `stop`. Raises ServingError where there is no such exporter."""

    def __init__(self) -> None:
        _complain_rarely()
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: _SERVICE}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = _make_exporter()
        if exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("serving")

    def stop(self) -> None:
        """Sends what there is, if somebody takes it soon enough."""
        flush = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        flush.start()
        flush.join(_LONGEST_FLUSH)

    def add(self, ending: Ending, lookup: Lookup, started: float) -> None:
        """Makes the span of the request that this thread has just answered, and began to by the performance counter.

        It continues the caller's trace, where `lookup` finds one.
        """
        times = _Times(facts, started)
        span = self._tracer.start_span(
            ending.name,
            propagate.extract(lookup, getter=_GETTER),
            SpanKind.SERVER,
            {name: value for name, value in ending.attributes.items() if value != ""},
            start_time=times.nanoseconds(times.arrived),
        )
        context = span.get_span_context()
        facts.trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
        if span.is_recording():
            span.set_attributes(_model_attributes(facts))
            if ending.error:
                span.set_attribute("error.type", ending.error)
                span.set_status(StatusCode.ERROR)
            self._add_parts(span, times)
        span.end(times.nanoseconds(times.ended))

    def _add_parts(self, span: trace.Span, times: "_Times") -> None:
        parent = trace.set_span_in_context(span)
        for name, (start, end) in times.parts().items():
            self._tracer.start_span(name, parent, start_time=times.nanoseconds(start)).end(times.nanoseconds(end))


class _Times:
    """When the parts of a request began and ended, by the performance counter."""

    def __init__(self, facts: RequestFacts, started: float) -> None:
        self.arrived, self.started = started - facts.queue_time, started
        self.run_started, self.run_ended = facts.run_ended - facts.run_time, facts.run_ended
        self.ended = time.perf_counter()
        self._offset = time.time_ns() - round(self.ended * 1e9)

    def nanoseconds(self, counter: float) -> int:
        """Since 1970."""
        return self._offset + round(counter * 1e9)

    def parts(self) -> dict[str, tuple[float, float]]:
        """The wait for a thread; then, where a model ran, what came before the run, the run, and what came after."""
        parts = {"queue": (self.arrived, self.started)}
        if self.run_ended:
            parts["decode"] = (self.started, self.run_started)
            parts["run"] = (self.run_started, self.run_ended)
            parts["encode"] = (self.run_ended, self.ended)
        return parts


class _LookupGetter(Getter[Lookup]):
    def get(self, carrier: Lookup, key: str) -> list[str] | None:
        value = carrier(key)
        return [value] if value else None

    def keys(self, carrier: Lookup) -> list[str]:
        return []


_GETTER = _LookupGetter()


class _RareComplaints(logging.Handler):
    """Hands on what OpenTelemetry complains of: each complaint once in ten minutes, without a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        complaint = str(record.msg)
        if time.monotonic() - self._last.get(complaint, float("-inf")) >= _BETWEEN_COMPLAINTS:
            self._last[complaint] = time.monotonic()
            logger.log(record.levelno, "OpenTelemetry: %s", record.getMessage())


def _complain_rarely() -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    theirs.handlers = [_RareComplaints()]


def _model_attributes(facts: RequestFacts) -> dict[str, str]:
    known = {"model.name": facts.model, "model.version": facts.version, "model.signature_name": facts.signature}
    return {name: value for name, value in known.items() if value}


def _make_exporter() -> Any:
    """The exporter that the environment names, by the entry points that OpenTelemetry's packages declare."""
    name = asked = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if name == "none":
        return None
    if name == "otlp":
        asked = (
            os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        )
        name = _PROTOCOLS.get(asked, asked)
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise invalid_argument(
            f"--enable_tracing: no exporter for {asked} is installed; that for gRPC is in "
            "opentelemetry-exporter-otlp-proto-grpc"
        )
    return next(iter(found)).load()()
