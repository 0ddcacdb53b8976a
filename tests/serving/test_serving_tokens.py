"""Bearer tokens: what the file may say, and what each transport answers with and without them."""

import hashlib
import json
import socket
import time
from datetime import UTC, datetime, timedelta

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, inference_pb2, model_management_pb2

from serving.admission.tokens import read
from serving.errors import ServingError

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 20.0  # seconds that nothing here should take


def moment(seconds):
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


TOKENS = {
    "tokens": [
        {"name": "all", "sha256": hashlib.sha256(b"for-all").hexdigest()},
        {"name": "zoo", "token": "for-zoo", "models": ["zoo"], "expires": moment(3600)},
        {"name": "other", "token": "for-other", "models": ["other"]},
        {"name": "scraper", "token": "for-metrics", "models": [], "metrics": True},
        {"name": "operator", "token": "for-admin", "models": [], "admin": True},
        {"name": "late", "token": "too-late", "expires": moment(-1)},
    ]
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    path.write_text(json.dumps(TOKENS))
    return path


@pytest.fixture(scope="module")
def guarded(serve, zoo_path, path):
    monitoring = path.with_name("monitoring.config")
    monitoring.write_text("prometheus_config { enable: true }")
    options = {"enable_grpc_healthcheck_service": True, "rest_api_enable_cors_support": True}
    options["monitoring_config_file"] = str(monitoring)
    with serve(zoo_path, auth_token_file=str(path), **options) as server:
        yield server


@pytest.fixture(scope="module")
def ask(guarded, rest_client):
    with rest_client(guarded) as client:

        def send(method, url, authorization=None):
            headers = {"Authorization": authorization} if authorization else {}
            body = {"json": {"instances": [1]}} if method == "POST" else {}
            return client.request(method, url, headers=headers, **body)

        yield send


@pytest.fixture(scope="module")
def channel(guarded):
    with grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel:
        yield channel


def bearing(token):
    return [("authorization", f"Bearer {token}")]


MONITORING = "/monitoring/prometheus/metrics"
PREDICT, OTHER, NOWHERE = "/v1/models/zoo:predict", "/v1/models/other:predict", "/v1/models/nowhere:predict"
REST = {
    "none": (None, "POST", PREDICT, 401),
    "unknown": ("Bearer for-nothing", "POST", PREDICT, 401),
    "another-scheme": ("Basic for-all", "POST", PREDICT, 401),
    "expired": ("Bearer too-late", "POST", PREDICT, 401),
    "hash-is-no-token": (f"Bearer {TOKENS['tokens'][0]['sha256']}", "POST", PREDICT, 401),
    "all": ("Bearer for-all", "POST", PREDICT, 200),
    "scheme-in-lower-case": ("bearer for-zoo", "POST", PREDICT, 200),
    "its-model": ("Bearer for-zoo", "GET", "/v1/models/zoo/metadata", 200),
    "its-model-in-other-letters": ("Bearer for-zoo", "GET", "/V1/MODELS/%7Aoo", 200),
    "other-model": ("Bearer for-other", "POST", PREDICT, 403),
    "other-model-encoded": ("Bearer for-other", "GET", "/V1/MODELS/%7Aoo", 403),
    "model-that-is-not-there": ("Bearer for-other", "POST", NOWHERE, 403),
    "own-model-that-is-not-there": ("Bearer for-other", "POST", OTHER, 404),
    "listing-for-one": ("Bearer for-zoo", "GET", "/v1/models", 403),
    "metrics-for-one": ("Bearer for-zoo", "GET", "/metrics", 403),
    "metrics": ("Bearer for-metrics", "GET", "/metrics", 200),
    "metrics-for-all": ("Bearer for-all", "GET", "/metrics", 200),
    "metrics-without": (None, "GET", "/metrics", 401),
    "metrics-of-tensorflow": ("Bearer for-metrics", "GET", MONITORING, 200),
    "metrics-of-tensorflow-by-another-verb": ("Bearer for-metrics", "POST", MONITORING, 404),
    "metrics-of-tensorflow-without": (None, "GET", MONITORING, 401),
    "options-of-metrics-of-tensorflow": (None, "OPTIONS", MONITORING, 401),
    "options-of-metrics": (None, "OPTIONS", "/metrics", 401),
    "outside-without": (None, "GET", "/elsewhere", 401),
    "outside": ("Bearer for-all", "GET", "/elsewhere", 404),
}  # fmt: skip


@pytest.mark.parametrize(("authorization", "method", "url", "status"), REST.values(), ids=REST)
def test_rest_answers(ask, authorization, method, url, status):
    answer = ask(method, url, authorization)
    assert answer.status_code == status
    challenge = {401: 'Bearer realm="models"', 403: 'Bearer realm="models", error="insufficient_scope"'}
    assert answer.headers.get("www-authenticate") == challenge.get(status)


def test_denial_does_not_tell_whether_a_model_is_there(ask):
    there, nowhere = (ask("POST", url, "Bearer for-other").text for url in (PREDICT, NOWHERE))
    assert json.loads(there) == {"error": "The token is not for model zoo"}
    assert there.replace("zoo", "nowhere") == nowhere


def test_probes_are_open_and_name_no_model(ask):
    assert ask("GET", "/healthz").status_code == 200
    answer = ask("GET", "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "phase": "serving"})


@pytest.mark.parametrize("headers", ["", "Expect: 100-continue\r\n"], ids=["sending", "waiting-for-leave"])
def test_large_body_is_refused_before_it_is_sent(guarded, headers):
    with socket.create_connection(("127.0.0.1", guarded.rest_port), timeout=WAIT) as client:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n{headers}\r\n"
        client.sendall(head.encode())
        answer = b"".join(iter(lambda: client.recv(10_000), b""))  # it ends: the connection is closed
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b'{"error":"The request has no bearer token"}')


@pytest.mark.parametrize(("authorization", "status"), [(None, 401), ("Bearer for-other", 403), ("Bearer for-zoo", 200)])
def test_scripts_of_other_origins_see_every_answer(ask, authorization, status):
    answer = ask("POST", PREDICT, authorization)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in ask("GET", "/metrics", authorization).headers


def test_browsers_ask_for_leave_without_a_token(ask):
    answer = ask("OPTIONS", PREDICT)
    assert answer.status_code == 400  # no Origin: as without tokens
    assert answer.headers["access-control-allow-headers"] == "Content-Type, Authorization"


GRPC = {
    "none": ([], "zoo", ("UNAUTHENTICATED", "The request has no bearer token")),
    "two": (bearing("for-all") * 2, "zoo", ("UNAUTHENTICATED", "The request has no bearer token")),
    "unknown": (bearing("for-nothing"), "zoo", ("UNAUTHENTICATED", "The token is unknown, or its time is over")),
    "expired": (bearing("too-late"), "zoo", ("UNAUTHENTICATED", "The token is unknown, or its time is over")),
    "other-model": (bearing("for-other"), "zoo", ("PERMISSION_DENIED", "The token is not for model zoo")),
    "nowhere": (bearing("for-other"), "no", ("PERMISSION_DENIED", "The token is not for model no")),
}


@pytest.mark.parametrize(("metadata", "model", "status"), GRPC.values(), ids=GRPC)
def test_grpc_refuses(guarded, grpc_stubs, predict_request, status_of, metadata, model, status):
    request = predict_request(model=model, x=np.float32([1]))
    with grpc_stubs(guarded) as stubs:
        assert status_of(stubs.prediction.Predict, request, metadata=metadata, timeout=WAIT) == status
        asked = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": model})
        assert status_of(stubs.model.GetModelStatus, asked, metadata=metadata, timeout=WAIT) == status


@pytest.mark.parametrize("token", ["for-all", "for-zoo"])
def test_grpc_answers_who_may_ask(guarded, grpc_stubs, predict_request, token):
    with grpc_stubs(guarded) as stubs:
        answer = stubs.prediction.Predict(predict_request(x=np.float32([1])), metadata=bearing(token), timeout=WAIT)
    assert list(answer.outputs["y"].float_val) == [2.5]


def test_every_task_of_a_request_must_be_allowed(guarded, grpc_stubs, status_of):
    tasks = [{"model_spec": {"name": name}, "method_name": "tensorflow/serving/classify"} for name in ("zoo", "other")]
    request = inference_pb2.MultiInferenceRequest(tasks=tasks)
    with grpc_stubs(guarded) as stubs:
        status = status_of(stubs.prediction.MultiInference, request, metadata=bearing("for-zoo"), timeout=WAIT)
    assert status == ("PERMISSION_DENIED", "The token is not for model other")


def test_configuration_is_for_administration(guarded, grpc_stubs, status_of):
    request = model_management_pb2.ReloadConfigRequest()
    with grpc_stubs(guarded) as stubs:
        reload = stubs.model.HandleReloadConfigRequest
        denied = ("PERMISSION_DENIED", "The token is not for administration")
        assert status_of(reload, request, metadata=bearing("for-all"), timeout=WAIT) == denied
        assert status_of(reload, request, timeout=WAIT)[0] == "UNAUTHENTICATED"
        allowed = status_of(reload, request, metadata=bearing("for-admin"), timeout=WAIT)
        assert allowed[0] == "INVALID_ARGUMENT"  # nothing was asked for


def test_profiles_are_for_administration(channel, status_of):
    profile = channel.unary_unary("/tensorflow.ProfilerService/Profile")
    assert status_of(profile, b"", metadata=bearing("for-all"), timeout=WAIT)[0] == "PERMISSION_DENIED"


def test_health_is_open_but_for_names_of_models(channel, status_of):
    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    request = health_pb2.HealthCheckRequest
    assert stub.Check(request(), timeout=WAIT).status == serving
    assert next(stub.Watch(request(), timeout=WAIT)).status == serving
    assert stub.Check(request(service="zoo"), metadata=bearing("for-zoo"), timeout=WAIT).status == serving
    for service in ("zoo", "nowhere"):
        assert status_of(stub.Check, request(service=service), timeout=WAIT)[0] == "UNAUTHENTICATED"
        denied = status_of(stub.Check, request(service=service), metadata=bearing("for-other"), timeout=WAIT)
        assert denied == ("PERMISSION_DENIED", f"The token is not for model {service}")
        assert status_of(lambda *a, **k: next(stub.Watch(*a, **k)), request(service=service))[0] == "UNAUTHENTICATED"


def test_reflection_needs_any_token(channel, status_of):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def services(**options):
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        return next(stub.ServerReflectionInfo(asked, timeout=WAIT, **options)).list_services_response.service

    assert status_of(services)[0] == "UNAUTHENTICATED"
    names = [each.name for each in services(metadata=bearing("for-metrics"))]
    assert "tensorflow.serving.PredictionService" in names


@pytest.mark.slow
def test_file_that_changes_is_followed(ask, path, caplog):
    def wait_until(condition):
        end = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    path.write_text('{"tokens": [{"name": "half')
    wait_until(lambda: "so that its earlier content stays in use: " in caplog.text)
    assert ask("GET", "/v1/models/zoo", "Bearer for-all").status_code == 200
    path.write_text(json.dumps({"tokens": [*TOKENS["tokens"][1:], {"token": "new"}]}))
    wait_until(lambda: ask("GET", "/v1/models/zoo", "Bearer new").status_code == 200)
    assert ask("GET", "/v1/models/zoo", "Bearer for-all").status_code == 401
    path.write_text(json.dumps(TOKENS))


WITHOUT_DESCRIPTORS = """
import logging, os, resource, sys, time
from serving.admission.tokens import read
from serving.errors import ServingError
from serving.background import FileWatcher

logging.basicConfig(format="%(message)s")
watcher = FileWatcher()
file = watcher.watch(sys.argv[1], read)
watcher.start()
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
os.replace(sys.argv[2], sys.argv[1])  # revokes the token
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
while True:
    try:
        file.value.authenticate("Bearer old")
    except ServingError:
        break
    time.sleep(0.05)
watcher.stop()
"""


@pytest.mark.slow
def test_token_is_revoked_though_no_descriptor_was_free_meanwhile(tmp_path, recovers):
    path, without = tmp_path / "tokens.json", tmp_path / "without.json"
    path.write_text('{"tokens": [{"token": "old"}]}')
    without.write_text('{"tokens": []}')
    recovers(WITHOUT_DESCRIPTORS, [path, without], "Too many open files")


WRONG = {
    "no-json": ("tokens", "is no JSON"),
    "another-shape": ("[]", r'does not look like {"tokens": \[...\]}'),
    "unknown-field": ('{"tokens": [{"token": "a", "expiry": "2027"}]}', "token 1: expiry is no field, or of another"),
    "other-type": ('{"tokens": [{"token": "a", "models": "zoo"}]}', "token 1: models is no field, or of another type"),
    "models-not-names": ('{"tokens": [{"token": "a", "models": [1]}]}', "models are no names"),
    "both": ('{"tokens": [{"token": "a", "sha256": "b"}]}', "needs either token or sha256"),
    "neither": ('{"tokens": [{"name": "a"}]}', "needs either token or sha256"),
    "short-hash": ('{"tokens": [{"sha256": "abc"}]}', "sha256 is not 64 hex digits"),
    "empty": ('{"tokens": [{"token": ""}]}', "token is empty"),
    "no-time": ('{"tokens": [{"token": "a", "expires": "soon"}]}', "expires is no time like"),
    "no-zone": ('{"tokens": [{"token": "a", "expires": "2027-01-01"}]}', "expires needs a time zone"),
    "twice": ('{"tokens": [{"token": "a"}, {"token": "a"}]}', "has a token twice"),
}


@pytest.mark.parametrize(("text", "complaint"), WRONG.values(), ids=WRONG)
def test_file_that_cannot_be_followed(tmp_path, text, complaint):
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(ServingError, match=complaint):
        read(str(path))


def test_missing_file(tmp_path):
    with pytest.raises(ServingError, match=r"NOT_FOUND: .*; No such file"):
        read(str(tmp_path / "tokens.json"))
