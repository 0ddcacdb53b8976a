"""Spans of requests, as a receiver of OpenTelemetry's protocol gets them."""

import contextlib
import http.server
import importlib
import socket
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serving.background import FileWatcher
from serving.errors import ServingError
from serving.options import Options
from serving.rest.routes import parse_route
from serving.telemetry.metrics import Metrics

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 20.0  # seconds that nothing here should take
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SERVER = 2  # SPAN_KIND_SERVER


class Receiver:
    """Takes spans over HTTP, and keeps them with the names of the services that they come from."""

    def __init__(self):
        self.spans, self.services = [], set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, request):
        for resource in request.resource_spans:
            self.services.add(attributes_of(resource.resource)["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def of_trace(self, trace_id, number):
        """So many spans of a trace, once they are there: that of the request first, then those of its parts."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            found = [span for span in list(self.spans) if span.trace_id.hex() == trace_id]
            if len(found) >= number:
                return sorted(found, key=lambda span: (span.kind != SERVER, span.start_time_unix_nano))
            time.sleep(0.02)
        raise AssertionError(f"there are {len(found)} spans of {trace_id}")


def attributes_of(message):
    return {each.key: next(iter(MessageToDict(each.value).values())) for each in message.attributes}


@pytest.fixture(scope="module")
def receiver():
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=[0.02])
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture(scope="module")
def environment(receiver):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
        yield patch


@pytest.fixture(scope="module")
def traced(serve, zoo_path, environment, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "access.log"
    with serve(zoo_path, enable_tracing=True, access_log=str(log), enable_grpc_healthcheck_service=True) as server:
        yield server, log


@pytest.fixture(scope="module")
def rest(traced, rest_client):
    with rest_client(traced[0]) as client:
        yield client


def check_parts(spans):
    """The parts follow one another, from the beginning of the request to its end."""
    request, *parts = spans
    assert [part.name for part in parts] == ["queue", "decode", "run", "encode"]
    assert {part.parent_span_id for part in parts} == {request.span_id}
    starts = [part.start_time_unix_nano for part in parts]
    ends = [part.end_time_unix_nano for part in parts]
    assert starts == [request.start_time_unix_nano, *ends[:-1]]
    assert ends == [*starts[1:], request.end_time_unix_nano]
    assert starts == sorted(starts)
    assert abs(ends[-1] / 1e9 - time.time()) < WAIT


MODEL = {"model.name": "zoo", "model.version": "123", "model.signature_name": "serving_default"}


def test_request_over_rest_continues_its_callers_trace(receiver, traced, rest):
    path = "/v1/models/zoo/versions/123:predict"
    rest.post(path, json={"instances": [1]}, headers={"traceparent": TRACEPARENT})
    spans = receiver.of_trace(TRACE, 5)
    check_parts(spans)
    request = spans[0]
    assert (request.name, request.kind) == ("POST /v1/models/{name}/versions/{version}:predict", SERVER)
    assert request.parent_span_id.hex() == PARENT
    assert attributes_of(request) == {
        **MODEL,
        "http.request.method": "POST",
        "http.route": "/v1/models/{name}/versions/{version}:predict",
        "url.scheme": "http",
        "url.path": path,
        "client.address": "127.0.0.1",
        "http.response.status_code": "200",
    }
    assert not request.status.code
    assert receiver.services == {"keras-prelu-serve"}


def test_call_over_grpc_continues_its_callers_trace(receiver, traced, grpc_stubs, predict_request):
    trace = TRACE[::-1]
    metadata = [("traceparent", f"00-{trace}-{PARENT}-01")]
    with grpc_stubs(traced[0]) as stubs:
        stubs.prediction.Predict(predict_request(x=np.float32([1])), metadata=metadata, timeout=WAIT)
    spans = receiver.of_trace(trace, 5)
    check_parts(spans)
    request = spans[0]
    assert (request.name, request.kind) == ("tensorflow.serving.PredictionService/Predict", SERVER)
    assert request.parent_span_id.hex() == PARENT
    assert attributes_of(request) == {
        **MODEL,
        "rpc.system.name": "grpc",
        "rpc.method": "tensorflow.serving.PredictionService/Predict",
        "client.address": "127.0.0.1",
        "rpc.response.status_code": "OK",
    }


def traceparent(number):
    return f"{number:032x}", f"00-{number:032x}-{PARENT}-01"


REST = {
    "fault-of-the-client": ("POST", "/v1/models/zoo:predict", {"instances": ["a"]}, 400, ""),
    "fault-of-the-server": ("POST", "/v1/models/zoo:predict", {"signature_name": "slow", "inputs": 10**9}, 504, "504"),
    "path-that-is-made-up": ("GET", "/made/up", None, 404, ""),
}


@pytest.mark.parametrize(("method", "path", "body", "status", "error"), REST.values(), ids=REST)
def test_status_of_a_request(receiver, serve, zoo_path, environment, rest_client, method, path, body, status, error):
    trace, header = traceparent(status)
    with environment.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")  # nothing is sent before the server ends
        with (
            serve(zoo_path, enable_tracing=True, rest_api_timeout_in_ms=100) as server,
            rest_client(server) as rest,
        ):
            answer = rest.request(method, path, json=body, headers={"traceparent": header})
    request = receiver.of_trace(trace, 2)[0]
    attributes = attributes_of(request)
    assert (answer.status_code, attributes["http.response.status_code"]) == (status, str(status))
    assert attributes.get("error.type", "") == error
    assert request.status.code == (2 if error else 0)
    assert request.name == (f"{method} {attributes['http.route']}" if "http.route" in attributes else method)


@pytest.mark.parametrize(
    ("signature", "code", "error"), [("none", "FAILED_PRECONDITION", ""), ("slow", "DEADLINE_EXCEEDED", "yes")]
)
def test_status_of_a_call(receiver, traced, grpc_stubs, predict_request, status_of, signature, code, error):
    trace, header = traceparent(len(code))
    request = predict_request(signature, n=np.int64(10**9))
    with grpc_stubs(traced[0]) as stubs:
        call = stubs.prediction.Predict
        assert status_of(call, request, metadata=[("traceparent", header)], timeout=0.3)[0] == code
    span = receiver.of_trace(trace, 2)[0]
    assert attributes_of(span)["rpc.response.status_code"] == code
    assert attributes_of(span).get("error.type") == (code if error else None)
    assert span.status.code == (2 if error else 0)


def test_access_log_names_the_trace(traced, rest):
    rest.get("/v1/models/zoo", headers={"traceparent": TRACEPARENT, "x-request-id": "traced"})
    end = time.monotonic() + WAIT
    while '"request_id":"traced"' not in traced[1].read_text() and time.monotonic() < end:
        time.sleep(0.02)
    assert f'"request_id":"traced","trace_id":"{TRACE}"' in traced[1].read_text()


def test_request_without_a_trace_begins_one(receiver, rest):
    before = {span.trace_id for span in receiver.spans}
    rest.get("/v1/models/zoo/metadata", headers={"traceparent": "nonsense"})
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        new = [span for span in receiver.spans if span.trace_id not in before and "metadata" in span.name]
        if new:
            break
        time.sleep(0.02)
    (span,) = new
    assert not span.parent_span_id


def test_probes_are_not_traced(receiver, traced, rest, grpc_stubs):
    trace, header = traceparent(77)
    rest.get("/healthz", headers={"traceparent": header})
    rest.get("/readyz", headers={"traceparent": header})
    with grpc.insecure_channel(f"127.0.0.1:{traced[0].grpc_port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        check(health_pb2.HealthCheckRequest(), metadata=[("traceparent", header)], timeout=WAIT)
    last, header = traceparent(78)
    rest.get("/v1/models/zoo", headers={"traceparent": header})
    receiver.of_trace(last, 2)
    assert not [span for span in receiver.spans if span.trace_id.hex() == trace]


def test_sampler_of_the_environment_is_followed(receiver, serve, zoo_path, environment, rest_client):
    trace, header = traceparent(99)
    with environment.context() as patch:
        patch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        patch.setenv("OTEL_SERVICE_NAME", "never-seen")
        with serve(zoo_path, enable_tracing=True) as server, rest_client(server) as rest:
            assert rest.get("/v1/models/zoo", headers={"traceparent": header}).status_code == 200
    assert not [span for span in receiver.spans if span.trace_id.hex() == trace]
    assert "never-seen" not in receiver.services


@contextlib.contextmanager
def endpoint(silent):
    """An address where nobody listens, or where nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if silent:
            yield address
    if not silent:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "never-answers"])
def test_requests_go_on_where_nobody_takes_the_spans(serve, zoo_path, environment, rest_client, caplog, silent):
    with endpoint(silent) as address, environment.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # seconds
        patch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
        patch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
        with serve(zoo_path, enable_tracing=True) as server, rest_client(server) as rest:
            begun = time.monotonic()
            for _ in range(200):
                assert rest.post("/v1/models/zoo:predict", json={"instances": [1]}).status_code == 200
            assert time.monotonic() - begun < 10  # an export takes a second to fail
        assert time.monotonic() - begun < 20
    complaints = [record for record in caplog.records if record.getMessage().startswith("OpenTelemetry: ")]
    assert 1 <= len(complaints) <= 5
    assert not any(record.exc_info for record in caplog.records)


def test_missing_extra_is_told_with_what_brings_it(serve, zoo_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "serving.telemetry.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ServingError, match=r"--enable_tracing: opentelemetry is not .*'\.\[tracing\]'"):
        serve(zoo_path, enable_tracing=True).__enter__()


def test_exporter_that_is_not_installed_is_told(serve, zoo_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
    with pytest.raises(ServingError, match="no exporter for carrier-pigeon is installed"):
        serve(zoo_path, enable_tracing=True).__enter__()


def test_without_the_flag_opentelemetry_is_not_imported(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, name, None)  # whoever imports it fails
    for name in ("serving.telemetry.tracing", "serving.admission.policy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    policy = importlib.import_module("serving.admission.policy").Policy(Options(), Metrics(), FileWatcher())
    policy.stop()


TEMPLATES = {
    ("POST", "/v1/models/a%20b:classify"): "/v1/models/{name}:classify",
    ("POST", "/v1/models/m/labels/stable:regress"): "/v1/models/{name}/labels/{label}:regress",
    ("GET", "/v1/models/m/versions/7/metadata"): "/v1/models/{name}/versions/{version}/metadata",
    ("GET", "/v1/models"): "/v1/models",
    ("GET", "/v1/other"): "",
    ("PUT", "/v1/models/m"): "",
}


@pytest.mark.parametrize(("asked", "expected"), TEMPLATES.items())
def test_route_of_a_path(asked, expected):
    assert parse_route(*asked).template == expected
