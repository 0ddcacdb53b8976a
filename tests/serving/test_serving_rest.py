"""The REST API behind a real socket."""

import asyncio
import gzip
import json
import socket
import struct

import httpx
import numpy as np
import pytest

from serving.api.service import Service
from serving.options import Options
from serving.rest.app import create_app

pytestmark = pytest.mark.xdist_group("serving")

STATUS = "/v1/models/zoo"
PREDICT = STATUS + ":predict"
CLASSIFY = STATUS + ":classify"
REGRESS = STATUS + ":regress"


def test_rows_agree_with_numpy(rest):
    x = np.random.default_rng(0).normal(size=100).astype(np.float32)
    answer = rest.post(PREDICT, json={"instances": x.tolist()})
    assert answer.status_code == 200
    np.testing.assert_array_equal(np.float32(answer.json()["predictions"]), x / 2 + 2)


def test_columns_agree_with_numpy(rest):
    answer = rest.post(PREDICT, json={"signature_name": "pick", "inputs": {"a": [1, 2], "b": [True, False]}})
    assert answer.json() == {"outputs": [1, -2]}


def test_rows_of_objects_agree_with_numpy(rest):
    rows = [{"a": 2**53 + 1, "b": False}, {"a": 7, "b": True}]
    answer = rest.post(PREDICT, json={"signature_name": "pick", "instances": rows})
    assert answer.json() == {"predictions": [-(2**53) - 1, 7]}


EXACT_ANSWERS = {
    "float32-shortest-digits": (
        {"signature_name": "identity", "instances": [0.2, 1, 16777215, 1e-7, -0.1]},
        b'{"predictions":[0.2,1.0,16777215.0,1e-7,-0.1]}',
    ),
    "several-outputs-are-objects": (
        {"signature_name": "two_outputs", "instances": [1, 2.5]},
        b'{"predictions":[{"count":0,"double":2.0},{"count":1,"double":5.0}]}',
    ),
    "several-outputs-in-columns": (
        {"signature_name": "two_outputs", "inputs": [1, 2.5]},
        b'{"outputs":{"count":[0,1],"double":[2.0,5.0]}}',
    ),
    "bytes-suffix-is-base64": (
        {"signature_name": "strings", "instances": [{"b64": "/wBh"}, "a"]},
        b'{"predictions":[{"text":"\xef\xbf\xbd\\u0000A","x_bytes":{"b64":"/wBh"}},'
        b'{"text":"A","x_bytes":{"b64":"YQ=="}}]}',
    ),
    "one-string-output-is-bare": (
        {"signature_name": "only_text", "instances": ["\u00fcber", "b"]},
        '{"predictions":["\u00fcber!","b!"]}'.encode(),
    ),
    "scalar-in-columns": ({"signature_name": "total", "inputs": [1, 2]}, b'{"outputs":3.0}'),
    "nested-rows": (
        {"signature_name": "pairs", "instances": [1, 2, 3, 4]},
        b'{"predictions":[[1.0,2.0],[3.0,4.0]]}',
    ),
    "other-keys-are-ignored": ({"instances": [1], "comment": [None]}, b'{"predictions":[2.5]}'),
    "classify": (
        {"signature_name": "classify", "examples": [{"x": 0.25}, {"x": [1.0]}]},
        b'{"results":[[["cat",0.25],["dog",0.75]],[["cat",1.0],["dog",0.0]]]}',
    ),
    "classify-with-context": (
        {"signature_name": "classify", "context": {"shift": 2.0}, "examples": [{"x": 0.5}]},
        b'{"results":[[["cat",2.5],["dog",0.5]]]}',
    ),
    "regress": (
        {"signature_name": "regress", "examples": [{"x": 0.25}, {"x": [0.5]}]},
        b'{"results":[2.5,5.0]}',
    ),
    "classify-scores-only": (
        {"signature_name": "only_scores", "examples": [{"x": 0.5}]},
        b'{"results":[[["",0.5],["",0.5]]]}',
    ),
}


@pytest.mark.parametrize(("request_body", "answer_body"), EXACT_ANSWERS.values(), ids=EXACT_ANSWERS)
def test_answer_is_exactly(rest, request_body, answer_body):
    path = PREDICT
    if "examples" in request_body:
        path = REGRESS if request_body["signature_name"] == "regress" else CLASSIFY
    answer = rest.post(path, json=request_body)
    assert answer.content == answer_body
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


def test_not_a_number_and_infinity_both_ways(rest):
    body = b'{"signature_name": "identity", "instances": [NaN, Infinity, -Infinity, Inf, 0.2]} and more'
    answer = rest.post(PREDICT, content=body)
    assert answer.content == b'{"predictions":[NaN,Infinity,-Infinity,Infinity,0.2]}'


def test_scores_that_are_not_finite(rest):
    body = b'{"signature_name": "classify", "examples": [{"x": Infinity}, {"x": NaN}]}'
    answer = rest.post(CLASSIFY, content=body)
    assert answer.content == (b'{"results":[[["cat",Infinity],["dog",-Infinity]],[["cat",NaN],["dog",NaN]]]}')


HELP = '\nInputs of signature "serving_default": x: float [?]. A body that fits: GET /v1/models/zoo/example'
HELP_WITH_HALVES = (
    '\nInputs of signature "halves": x: half [?]. A body that fits: GET /v1/models/zoo/example?signature_name=halves'
)
ERRORS = {
    "empty-body": (b"", 400, "JSON Parse error: The document is empty"),
    "no-json": (b"x", 400, "JSON Parse error: Invalid value. at offset: 0"),
    "unknown-signature": (
        b'{"signature_name": "s", "instances": [1]}',
        400,
        'Serving signature name: "s" not found in signature def',
    ),
    "no-inputs": (b"{}", 400, "Missing 'inputs' or 'instances' key" + HELP),
    "wrong-type": (
        b'{"instances": ["a"]}',
        400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "a" Type: String is not of expected type: float' + HELP,
    ),
    "half-in-columns": (
        b'{"signature_name": "halves", "inputs": [1.5]}',
        501,
        "Conversion of JSON Value: 1.5 to type: half" + HELP_WITH_HALVES,
    ),
    "half-in-rows": (
        b'{"signature_name": "halves", "instances": [1.5]}',
        400,
        "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: "
        "Conversion of JSON Value: 1.5 to type: half" + HELP_WITH_HALVES,
    ),
    "scalar-output-in-rows": (
        b'{"signature_name": "total", "instances": [1]}',
        400,
        "Tensor name: sum has no shape information ",
    ),
    "uneven-outputs-in-rows": (
        b'{"signature_name": "uneven_outputs", "instances": [1, 2, 3]}',
        400,
        "Tensor name: b has inconsistent batch size: 2 expecting: 3",
    ),
    "operation-refuses": (
        b'{"signature_name": "pairs", "instances": [1, 2, 3]}',
        400,
        "Input to reshape is a tensor with 3 values, but the requested shape requires a multiple of 2\n"
        "\t [[{{node Reshape}}]]",
    ),
}


@pytest.mark.parametrize(("body", "status", "message"), ERRORS.values(), ids=ERRORS)
def test_predict_error_is_exactly(rest, body, status, message):
    answer = rest.post(PREDICT, content=body)
    assert (answer.status_code, answer.json()) == (status, {"error": message})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("key", ["instances", "inputs", "examples", "context", "x"])
@pytest.mark.parametrize("depth", [65, 1000, 100_000])
def test_deep_lists_are_the_fault_of_the_client(rest, key, depth):
    action = "classify" if key in ("examples", "context") else "predict"
    for opened, closed in ("[]", ('{"x":', "}")):
        body = f'{{"{key}": {opened * depth}1{closed * depth}}}'
        assert rest.post(f"/v1/models/zoo:{action}", content=body).status_code == 400


PATHS = {
    "unknown-model": ("POST", "/v1/models/m:predict", 404, "Servable not found for request: Latest(m)"),
    "unknown-version": (
        "POST",
        "/v1/models/zoo/versions/7:predict",
        404,
        "Servable not found for request: Specific(zoo, 7)",
    ),
    "unknown-label": (
        "POST",
        "/v1/models/zoo/labels/a%20b:predict",
        400,
        "Unrecognized servable version label: a b",
    ),
    "encoded-name": ("POST", "/v1/models/a%2Fb:predict", 404, "Servable not found for request: Latest(a/b)"),
    "wrong-verb": ("GET", "/v1/models/zoo:predict", 400, "Malformed request: GET /v1/models/zoo:predict"),
    "delete": ("DELETE", "/v1/models/zoo", 400, "Malformed request: DELETE /v1/models/zoo"),
    "wrong-path": ("GET", "/v1/foo", 400, "Malformed request: GET /v1/foo"),
    "no-full-match": ("POST", "/v1/models/zoo:predictx", 400, "Malformed request: POST /v1/models/zoo:predictx"),
    "no-name": ("GET", "/v1/models/versions/1", 400, "Missing model name in request."),
    "huge-version": (
        "GET",
        "/v1/models/zoo/versions/9223372036854775808",
        400,
        "Failed to convert version: 9223372036854775808 to numeric.",
    ),
    "status-of-unknown-model": ("GET", "/v1/models/m", 404, "Could not find any versions of model m"),
    "status-of-unknown-version": (
        "GET",
        "/v1/models/zoo/versions/7",
        404,
        "Could not find version 7 of model zoo",
    ),
    "malformed-regress": ("GET", "/v1/models/zoo:regress", 400, "Malformed request: GET /v1/models/zoo:regress"),
    "metadata-of-unknown-model": ("GET", "/v1/models/m/metadata", 404, "Servable not found for request: Latest(m)"),
    "post-to-status": ("POST", "/v1/models/zoo", 400, "Malformed request: POST /v1/models/zoo"),
    "version-that-is-no-number": (
        "GET",
        "/v1/models/zoo/versions/a",
        400,
        "Malformed request: GET /v1/models/zoo/versions/a",
    ),
    "empty-name": ("GET", "/v1/models/", 400, "Malformed request: GET /v1/models/"),
}


@pytest.mark.parametrize(("verb", "path", "status", "message"), PATHS.values(), ids=PATHS)
def test_path_error_is_exactly(rest, verb, path, status, message):
    answer = rest.request(verb, path, content=b'{"instances": [1]}')
    assert (answer.status_code, answer.json()) == (status, {"error": message})


FIRST = {
    "no-json": (b"x", 400, "JSON Parse error: Invalid value. at offset: 0"),
    "signature-name": (b'{"signature_name": 1}', 400, "'signature_name' key must be a string value."),
    "no-inputs": (b"{}", 404, "Servable not found for request: Latest(m)"),
}


@pytest.mark.parametrize(("body", "status", "message"), FIRST.values(), ids=FIRST)
def test_error_of_parsing_comes_before_that_of_the_model(rest, body, status, message):
    answer = rest.post("/v1/models/m:predict", content=body)
    assert answer.status_code == status
    assert answer.json()["error"].endswith(message)


@pytest.mark.parametrize(
    "path", ["/V1/Models/zoo:Predict", "/v1/models/%7Aoo:predict", "/v1/models/zoo/versions/0123:predict?x=1"]
)
def test_path_variants_reach_the_model(rest, path):
    answer = rest.post(path, json={"instances": [1]})
    assert answer.json() == {"predictions": [2.5]}


def test_status(rest):
    status = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert rest.get(STATUS).json() == {"model_version_status": [status]}
    assert rest.get(f"{STATUS}/versions/123").json() == {"model_version_status": [status]}


def test_regression_that_is_not_finite(rest):
    body = b'{"signature_name": "regress", "examples": [{"x": NaN}, {"x": -Infinity}]}'
    assert rest.post(REGRESS, content=body).content == b'{"results":[NaN,-Infinity]}'


def test_unknown_signature_of_regress(rest):
    answer = rest.post(REGRESS, json={"signature_name": "s", "examples": [{"x": 1.0}]})
    assert (answer.status_code, answer.json()) == (400, {"error": "No signature was found with the name: s"})


@pytest.mark.parametrize("path", [f"{STATUS}/metadata", f"{STATUS}/versions/123/metadata"])
def test_metadata(rest, path):
    answer = rest.get(path).json()
    assert answer["model_spec"] == {"name": "zoo", "signature_name": "", "version": "123"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    pick = signatures["pick"]
    assert pick["method_name"] == "tensorflow/serving/predict"
    assert pick["inputs"]["a"] == {
        "dtype": "DT_INT64",
        "name": "pick_a:0",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
    }
    assert pick["outputs"].keys() == {"y"}
    assert {"serving_default", "classify", "regress"} <= signatures.keys()


def test_outside_the_api_is_a_bare_404(rest):
    answer = rest.get("/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html"
    assert "<H1>Not Found</H1>" in answer.text


@pytest.mark.parametrize(("origin", "status"), [("https://a.example", 200), ("null", 400)])
def test_options(rest, origin, status):
    answer = rest.options(STATUS, headers={"Origin": origin})
    assert (answer.status_code, answer.content) == (status, b"")


CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}


@pytest.mark.parametrize(
    ("verb", "path"), [("GET", STATUS), ("GET", "/v1/nothing"), ("OPTIONS", PREDICT)], ids=["right", "wrong", "options"]
)
def test_other_origins_are_let_in_where_that_is_asked_for(rest, serve, rest_client, zoo_path, verb, path):
    origin = {"Origin": "https://a.example"}
    with serve(zoo_path, rest_api_enable_cors_support=True) as server, rest_client(server) as client:
        assert CORS.items() <= client.request(verb, path, headers=origin).headers.items()
    assert not CORS.keys() & rest.request(verb, path, headers=origin).headers.keys()


def test_metrics_are_under_both_names(serve, rest_client, zoo_path, tmp_path):
    config = tmp_path / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    with serve(zoo_path, monitoring_config_file=str(config)) as server, rest_client(server) as client:
        client.post(PREDICT, json={"instances": [1]})
        client.post(PREDICT, json={"instances": ["a"]})
        client.post("/v1/models/made-up:predict", json={"instances": [1]})
        client.post(CLASSIFY, json={"signature_name": "classify", "examples": [{"x": 1.0}, {"x": 0.5}]})
        upstream = client.get("/monitoring/prometheus/metrics")
        own = client.get("/metrics")
    assert upstream.headers["content-type"] == "text/plain"
    assert ':tensorflow:serving:request_count{model_name="zoo",status="OK"} 2' in upstream.text.splitlines()
    assert ':tensorflow:serving:request_count{model_name="zoo",status="INVALID_ARGUMENT"} 1' in upstream.text
    assert ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"} 1' in upstream.text
    assert "made-up" not in upstream.text + own.text, "names that clients make up would fill the memory"
    assert ':tensorflow:serving:request_example_count_total{model="zoo"} 3' in upstream.text
    count = 'request_latency_count{model_name="zoo",API="predict",entrypoint="REST"} 1'
    assert f":tensorflow:serving:{count}" in upstream.text
    assert own.headers["content-type"].startswith("text/plain; version=")
    assert (
        'tensorflow_serving_request_count_total{method="classify",model="zoo",signature="classify",status="OK",'
        'transport="REST",version="123"} 1.0'
    ) in own.text.splitlines()


def test_monitoring_path_is_off_unless_asked_for(rest):
    assert rest.get("/monitoring/prometheus/metrics").status_code == 404
    assert rest.get("/metrics").status_code == 200
    assert rest.post("/metrics").status_code == 404


def test_gzip_request(rest):
    body = gzip.compress(b'{"instances": ') + gzip.compress(b"[1]}")  # two members
    answer = rest.post(PREDICT, content=body, headers={"Content-Encoding": "gzip"})
    assert answer.json() == {"predictions": [2.5]}


BOMB = b"".join([gzip.compress(bytes(2**20))] * 100 + [gzip.compress(b"1")])
MEMBERS = gzip.compress(b"") * 1001
BAD_GZIP = {
    "not-gzip": (b"{}", "Request body is not valid gzip: Error -3 while decompressing data: incorrect header check"),
    "cut": (gzip.compress(b"{}" * 99)[:-9], "Request body is not valid gzip: it ends too early"),
    "many-members": (MEMBERS, "Request body is gzip of more than 1000 members."),
    "bomb": (BOMB, "Request body inflates to more than 104857600 bytes."),
}


@pytest.mark.parametrize(("body", "message"), BAD_GZIP.values(), ids=BAD_GZIP)
def test_gzip_error_is_exactly(rest, body, message):
    answer = rest.post(PREDICT, content=body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_connection_is_kept_alive(server):
    body = b'{"instances": [1]}'
    head = f"POST /v1/models/zoo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
        reader = connection.makefile("rb")
        for _ in range(3):
            connection.sendall(head + body)
            length = _read_head(reader)
            assert reader.read(length) == b'{"predictions":[2.5]}'
        reader.close()


def _read_head(reader):
    assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
    headers = dict(line.lower().split(b": ") for line in iter(reader.readline, b"\r\n"))
    return int(headers[b"content-length"])


def test_megabyte_body(rest):
    x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    body = json.dumps({"instances": x.tolist()}).encode()
    assert len(body) > 1_000_000
    answer = rest.post(PREDICT, content=body)
    np.testing.assert_array_equal(np.float32(answer.json()["predictions"]), x / 2 + 2)


def test_client_that_goes_away_harms_nobody(server, rest):
    with socket.create_connection(("127.0.0.1", server.rest_port)) as connection:
        connection.sendall(b"POST /v1/models/zoo:predict HTTP/1.1\r\nContent-Length: 99\r\n\r\n{")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert rest.post(PREDICT, json={"instances": [1]}).status_code == 200


def test_deadline(serve, rest_client, zoo_path):
    with serve(zoo_path, rest_api_timeout_in_ms=200) as server, rest_client(server) as client:
        answer = client.post(PREDICT, json={"signature_name": "slow", "inputs": 10**9})
        assert answer.status_code == 504
        assert answer.json() == {"error": "Timed out waiting for notification"}
        assert client.post(PREDICT, json={"instances": [1]}).status_code == 200


def test_unexpected_error_tells_the_log_and_not_the_client(caplog):
    options = Options(model_base_path="/nowhere")
    service = Service(options)
    service.repository.knows = None
    with create_app(service, options) as app:
        response = asyncio.run(get(app, STATUS))
    assert response.status_code == 500
    assert response.content == b'{"error":"Internal error; the server\'s log has more."}'
    (record,) = caplog.records
    assert record.getMessage() == "GET /v1/models/zoo failed"
    assert record.exc_info[0] is TypeError


async def get(app, path):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


def test_port_is_closed_after_stop(serve, zoo_path):
    with serve(zoo_path) as server:
        port = server.rest_port
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/v1/models/zoo", trust_env=False)
