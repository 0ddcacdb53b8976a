"""The OpenAPI document: whether it is one, and whether a server takes and answers what it declares."""

import io
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, resources

import jsonschema
import numpy as np
import pytest
import tensorflow as tf
from openapi_spec_validator import OpenAPIV31SpecValidator
from tensorflow_serving.apis import classification_pb2, model_management_pb2, predict_pb2, regression_pb2

pytestmark = pytest.mark.xdist_group("serving")

ZOO = "/v1/models/zoo"
JSON = "application/json"
PROTOBUF = ("application/x-protobuf", "application/protobuf", "application/vnd.google.protobuf")
DECLARED_HEADERS = ("x-model-version", "x-request-id", "retry-after", "www-authenticate", "link")
ADDRESSES = ("", "/versions/123", "/labels/stable")
RUNS = ("predict", "classify", "regress")


class Contract:
    """Says of requests and answers whether they are as a document declares."""

    def __init__(self, document):
        self.document = document

    def resolve(self, part):
        while "$ref" in part:
            *_, kind, name = part["$ref"].split("/")
            part = self.document["components"][kind][name]
        return part

    def validate(self, value, schema):
        jsonschema.Draft202012Validator({"components": self.document["components"], **schema}).validate(value)

    def operation(self, method, path):
        """The operation for a path; None where there is none."""
        fitting = [each for template, each in self.document["paths"].items() if fits(template, path)]
        assert len(fitting) < 2, path
        return fitting[0].get(method.lower()) if fitting else None

    def check_request(self, request):
        """Raises where the document does not declare such a body."""
        content = self.resolve(self.operation(request.method, request.url.path)["requestBody"])["content"]
        kind = request.headers["content-type"].partition(";")[0]
        (declared,) = [each for each in content if re.fullmatch(each.replace("*", ".*"), kind)]
        if kind == JSON:
            self.validate(json.loads(request.content), content[declared]["schema"])

    def check(self, answer):
        """Raises where the document does not declare such an answer. Returns the answer."""
        operation = self.operation(answer.request.method, answer.request.url.path)
        response = self.resolve(operation["responses"][str(answer.status_code)])
        schema = response["content"][answer.headers["content-type"].partition(";")[0]]["schema"]
        if answer.headers["content-type"] == JSON:
            self.validate(answer.json(), schema)
        headers = {name.lower(): self.resolve(each) for name, each in response["headers"].items()}
        for name, header in headers.items():
            assert name in answer.headers or not header.get("required", False), name
        for name in DECLARED_HEADERS:
            if name in answer.headers:
                self.validate(answer.headers[name], headers[name]["schema"])
        return answer


def fits(template, path):
    pattern = template.replace("{version}", "[0-9]+").replace("{model}", "[^/:]+").replace("{label}", "[^/:]+")
    return re.fullmatch(pattern, path) is not None


@pytest.fixture(scope="module")
def served(rest):
    return rest.get("/openapi.json")


@pytest.fixture(scope="module")
def contract(served):
    return Contract(served.json())


@pytest.fixture(scope="module")
def labelled(serve, rest_client, grpc_stubs, zoo_path, tmp_path_factory):
    """A server with a label, an access log and TensorFlow Serving's page of metrics."""
    directory = tmp_path_factory.mktemp("labelled")
    (directory / "monitoring").write_text("prometheus_config { enable: true }")
    options = {"access_log": str(directory / "log"), "monitoring_config_file": str(directory / "monitoring")}
    with serve(zoo_path, **options) as server, rest_client(server) as rest, grpc_stubs(server) as stubs:
        request = model_management_pb2.ReloadConfigRequest()
        config = request.config.model_config_list.config.add(
            name="zoo", base_path=str(zoo_path), model_platform="tensorflow"
        )
        config.version_labels["stable"] = 123
        stubs.model.HandleReloadConfigRequest(request, timeout=20)
        yield rest


@pytest.mark.slow
def test_document_is_valid(served):
    OpenAPIV31SpecValidator(served.json()).validate()


def test_document_is_the_file_with_the_version(served):
    document = json.loads(resources.files("serving.rest").joinpath("openapi.json").read_bytes())
    document["info"]["version"] = metadata.version("keras_prelu")
    assert served.json() == document


def test_document_names_no_model(served):
    assert served.status_code == 200
    assert "zoo" not in served.text


def candidates():
    pages = ["/healthz", "/readyz", "/metrics", "/monitoring/prometheus/metrics", "/openapi.json", "/docs", "/v1"]
    ends = ["", "/metadata", "/example", "/signatures", "/example/1", *(f":{method}" for method in (*RUNS, "explain"))]
    models = [f"{ZOO}{address}{end}" for address in (*ADDRESSES, "/versions", "/aliases/1") for end in ends]
    return [*pages, "/v1/models", "/v1/models/", *models]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_document_has_the_paths_of_the_server_and_no_others(labelled, contract, method):
    routed, declared = set(), set()
    for path in candidates():
        answer = labelled.request(method, path)
        if answer.headers["content-type"] != "text/html" and not answer.text.startswith('{"error":"Malformed request'):
            routed.add(path)
        if contract.operation(method, path):
            declared.add(path)
            contract.check(answer)
    assert routed == declared
    assert len(declared) == {"GET": 15, "POST": 9}.get(method, 0)


def test_every_declared_path_was_tried(contract):
    for template in contract.document["paths"]:
        assert any(fits(template, path) for path in candidates()), template


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_take_head(rest, contract, path):
    assert contract.operation("HEAD", path)["responses"].keys() == {"200", "default"}
    answer = rest.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_both_formats_of_metrics_are_declared(rest, contract):
    for kind in contract.resolve(contract.operation("GET", "/metrics")["responses"]["200"])["content"]:
        answer = contract.check(rest.get("/metrics", headers={"Accept": kind}))
        assert answer.headers["content-type"].startswith(kind)


def test_page_that_is_off_is_declared(rest, contract):
    assert contract.check(rest.get("/monitoring/prometheus/metrics")).status_code == 404


@pytest.mark.slow
def test_sample_of_every_signature_is_declared_and_so_are_the_answers(rest, contract):
    signatures = rest.get(f"{ZOO}/metadata").json()["metadata"]["signature_def"]["signature_def"]
    methods = []
    for name in signatures:
        sample = contract.check(rest.get(f"{ZOO}/example", params={"signature_name": name}))
        if sample.status_code == 200:
            path = sample.headers["link"].partition(">")[0].removeprefix("<")
            answer = contract.check(rest.post(path, json=sample.json()))
            contract.check_request(answer.request)
            methods += [path.rpartition(":")[2]] * (answer.status_code == 200)
    assert {method: methods.count(method) for method in methods} == {"predict": 14, "classify": 2, "regress": 2}


TAKEN = {
    "columns": ("predict", {"signature_name": "pick", "inputs": {"a": [1, 2], "b": [True, False]}}),
    "rows": ("predict", {"instances": [1, 2.5], "signature_name": ""}),
    "named-rows": ("predict", {"instances": [{"x": 1}]}),
    "one-column": ("predict", {"inputs": [1]}),
    "scalar": ("predict", {"signature_name": "slow", "inputs": 1}),
    "base64": ("predict", {"signature_name": "strings", "instances": [{"b64": "AAA="}, "text", {"b64": "-_8"}]}),
    "several-outputs": ("predict", {"signature_name": "two_outputs", "instances": [1, 2]}),
    "several-columns": ("predict", {"signature_name": "two_outputs", "inputs": [1, 2]}),
    "context": ("classify", {"signature_name": "classify", "context": {"shift": 0.5}, "examples": [{"x": 1.0}]}),
    "lists-of-features": ("regress", {"signature_name": "regress", "examples": [{"x": [1.0]}, {"x": [0.5]}]}),
}


@pytest.mark.parametrize(("method", "body"), TAKEN.values(), ids=TAKEN)
def test_json_that_is_taken_is_declared(rest, contract, method, body):
    answer = contract.check(rest.post(f"{ZOO}:{method}", json=body))
    assert answer.status_code == 200
    contract.check_request(answer.request)


def test_numbers_that_standard_json_lacks_are_declared(rest, contract):
    text = '{"signature_name": "identity", "inputs": [NaN, Infinity, -Infinity]}'
    answer = contract.check(rest.post(f"{ZOO}:predict", content=text, headers={"Content-Type": JSON}))
    assert answer.text == '{"outputs":[NaN,Infinity,-Infinity]}'
    contract.check_request(answer.request)


REFUSED = {
    "no-input": ("predict", {"signature_name": "pick"}),
    "both-forms": ("predict", {"instances": [1], "inputs": [1]}),
    "no-rows": ("predict", {"instances": []}),
    "no-list": ("predict", {"instances": 1}),
    "null": ("predict", {"instances": [None]}),
    "mixed-rows": ("predict", {"instances": [1, {"x": 1}]}),
    "no-base64": ("predict", {"signature_name": "strings", "inputs": [{"b64": "A"}]}),
    "number-as-name": ("predict", {"signature_name": 1, "instances": [1]}),
    "list": ("predict", [1]),
    "no-examples": ("classify", {"signature_name": "classify", "examples": []}),
    "no-object": ("regress", {"signature_name": "regress", "examples": [1]}),
    "other-object": ("classify", {"signature_name": "classify", "examples": [{"x": {"b65": "AAA="}}]}),
    "nested-feature": ("regress", {"signature_name": "regress", "examples": [{"x": [[1.0]]}]}),
}


@pytest.mark.parametrize(("method", "body"), REFUSED.values(), ids=REFUSED)
def test_json_that_is_not_declared_is_refused(rest, contract, method, body):
    answer = contract.check(rest.post(f"{ZOO}:{method}", json=body))
    assert answer.status_code == 400
    with pytest.raises(jsonschema.ValidationError):
        contract.check_request(answer.request)


def array_file(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def examples_message(kind, example):
    message = kind()
    message.input.example_list.examples.append(example(x=1))
    return message.SerializeToString()


@pytest.fixture(scope="module")
def bodies(example):
    """By method and media type: the signature and the body."""
    x = np.ones(1, np.float32)
    message = predict_pb2.PredictRequest()
    message.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    predict = {
        JSON: ("", json.dumps({"instances": [1]})),
        "application/x-npy": ("", array_file(np.save, x)),
        "application/x-npz": ("", array_file(np.savez, x=x)),
        "image/*": ("strings", b"bytes"),
        "application/octet-stream": ("strings", b"bytes"),
        "multipart/form-data": ("", {"x": "1"}),
    }
    messages = {
        "predict": ("", message.SerializeToString()),
        "classify": ("classify", examples_message(classification_pb2.ClassificationRequest, example)),
        "regress": ("regress", examples_message(regression_pb2.RegressionRequest, example)),
    }
    pictures = {kind: predict[kind] for kind in ("image/*", "application/octet-stream", "multipart/form-data")}
    others = {
        method: {JSON: ("", json.dumps({"signature_name": method, "examples": [{"x": 1.0}]})), **pictures}
        for method in ("classify", "regress")
    }
    return {
        method: {**taken, **dict.fromkeys(PROTOBUF, messages[method])}
        for method, taken in {"predict": predict, **others}.items()
    }


def post(rest, method, kind, signature, body, accept="*/*"):
    url, headers = f"{ZOO}:{method}?signature_name={signature}", {"Accept": accept}
    if kind == "multipart/form-data":
        return rest.post(url, files={name: (None, value) for name, value in body.items()}, headers=headers)
    return rest.post(url, content=body, headers={**headers, "Content-Type": kind.replace("*", "png")})


@pytest.mark.parametrize("method", RUNS)
def test_every_declared_type_of_body_is_taken(rest, contract, bodies, method):
    operation = contract.operation("POST", f"{ZOO}:{method}")
    assert contract.resolve(operation["requestBody"])["content"].keys() == bodies[method].keys()
    for kind, (signature, body) in bodies[method].items():
        answer = contract.check(post(rest, method, kind, signature, body))
        contract.check_request(answer.request)
        # The zoo parses no images, and says so once it has read them.
        is_image = method != "predict" and kind in ("image/*", "application/octet-stream", "multipart/form-data")
        assert answer.status_code == (400 if is_image else 200), (kind, answer.text)


def test_images_are_taken_where_examples_hold_them(serve, rest_client, contract, tmp_path):
    def sizes(inputs):
        features = tf.io.parse_example(inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        return tf.cast(tf.strings.length(features["image/encoded"]), tf.float32)

    module, spec = tf.Module(), tf.TensorSpec([None], tf.string, "inputs")
    module.classify = tf.function(lambda inputs: {"scores": sizes(inputs)[:, None]}, [spec])
    module.regress = tf.function(lambda inputs: {"outputs": sizes(inputs)}, [spec])
    signatures = {"classify": module.classify, "regress": module.regress}
    tf.saved_model.save(module, str(tmp_path / "1"), signatures)
    with serve(tmp_path) as server, rest_client(server) as rest:
        for method, results in {"classify": [[["", 3.0]]], "regress": [3.0]}.items():
            answers = [post(rest, method, kind, "", b"abc") for kind in ("image/*", "application/octet-stream")]
            answers.append(post(rest, method, "multipart/form-data", "", {"image": b"abc"}))
            for answer in answers:
                contract.check_request(answer.request)
                assert contract.check(answer).json() == {"results": results}


@pytest.mark.parametrize("method", RUNS)
def test_every_declared_type_of_answer_is_given(rest, contract, bodies, method):
    operation = contract.operation("POST", f"{ZOO}:{method}")
    declared = contract.resolve(operation["responses"]["200"])["content"]
    assert len(declared) == (4 if method == "predict" else 2)
    for kind in declared:
        answer = contract.check(post(rest, method, JSON, *bodies[method][JSON], accept=kind))
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


ERRORS = {
    "not-found": ("POST", "/v1/models/none:predict", {"json": {"instances": [1]}}, 404),
    "no-version": ("GET", f"{ZOO}/versions/7", {}, 404),
    "no-label": ("GET", f"{ZOO}/labels/none/metadata", {}, 400),
    "no-signature": ("GET", f"{ZOO}/example?signature_name=none", {}, 400),
    "no-sample": ("GET", f"{ZOO}/example?signature_name=halves", {}, 501),
    "no-json": ("POST", f"{ZOO}:predict", {"content": "{"}, 400),
    "no-number-for-it": ("POST", f"{ZOO}:predict", {"json": {"signature_name": "halves", "inputs": [1]}}, 501),
    "no-message": ("POST", f"{ZOO}:regress", {"content": b"\xff", "headers": {"Content-Type": PROTOBUF[0]}}, 400),
    "large-head": ("GET", ZOO, {"headers": {"X-Padding": "x" * 70_000}}, 431),
    "large-body": ("POST", f"{ZOO}:predict", {"content": b" " * 2000}, 413),
}


@pytest.fixture(scope="module")
def narrow(serve, rest_client, zoo_path, tmp_path_factory):
    """A server with an access log that takes little, one at a time, and not for long."""
    options = {"rest_api_max_body_bytes": 1000, "rest_api_num_threads": 1, "rest_api_timeout_in_ms": 300}
    queue = {"max_queued_requests": 1, "max_queue_time_in_ms": 50}
    log = str(tmp_path_factory.mktemp("narrow") / "log")
    with serve(zoo_path, access_log=log, **options, **queue) as server, rest_client(server) as rest:
        yield rest


@pytest.mark.parametrize(("method", "path", "options", "status"), ERRORS.values(), ids=ERRORS)
def test_errors_are_declared(narrow, contract, method, path, options, status):
    answer = contract.check(narrow.request(method, path, **options))
    assert answer.status_code == status
    assert "x-request-id" in answer.headers


def test_errors_of_a_busy_server_are_declared(narrow, contract):
    def run_for_ever():
        return contract.check(
            narrow.post(f"{ZOO}:predict", json={"signature_name": "slow", "inputs": {"n": 2**62}}, timeout=20)
        )

    with ThreadPoolExecutor(3) as threads:
        asked = []
        for _ in range(3):
            asked.append(threads.submit(run_for_ever))
            time.sleep(0.05)
        answers = {each.result().status_code: each.result() for each in asked}
    assert answers.keys() == {504, 503, 429}
    assert ["retry-after" in answers[status].headers for status in (504, 503, 429)] == [False, True, True]


@pytest.mark.slow
def test_tokens_are_declared_where_they_are_needed(serve, rest_client, zoo_path, tmp_path, contract):
    tokens = tmp_path / "tokens.json"
    listed = [{"name": "all", "token": "a"}, {"name": "other", "token": "b", "models": []}]
    tokens.write_text(json.dumps({"tokens": listed}))
    with serve(zoo_path, auth_token_file=str(tokens)) as server, rest_client(server) as rest:
        guarded = Contract(rest.get("/openapi.json", headers={"Authorization": "Bearer a"}).json())
        for path in (ZOO, "/metrics", "/openapi.json", "/v1/models"):
            assert guarded.check(rest.get(path)).status_code == 401
            assert guarded.check(rest.get(path, headers={"Authorization": "Bearer b"})).status_code == 403
        for path in ("/healthz", "/readyz"):
            assert guarded.check(rest.get(path)).status_code == 200
            assert guarded.operation("GET", path)["security"] == guarded.operation("HEAD", path)["security"] == []
    OpenAPIV31SpecValidator(guarded.document).validate()
    assert guarded.document == {**contract.document, "security": [{"bearerAuth": []}]}


def test_readiness_that_is_missing_is_declared(serve, rest_client, grpc_stubs, zoo_path, tmp_path, contract):
    config = model_management_pb2.ReloadConfigRequest()
    config.config.model_config_list.config.add(name="later", base_path=str(tmp_path), model_platform="tensorflow")
    with serve(zoo_path) as server, rest_client(server) as rest, grpc_stubs(server) as stubs:
        reload = stubs.model.HandleReloadConfigRequest.future(config, timeout=20)
        end = time.monotonic() + 20
        while (answer := contract.check(rest.get("/readyz"))).status_code == 200:
            assert time.monotonic() < end
        reload.cancel()
    assert (answer.status_code, answer.json()["models_without_a_version"]) == (503, ["later"])
