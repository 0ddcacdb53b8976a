"""The OpenAPI document: whether it is one, and whether requests and answers are as it says."""

import io
import json

import jsonschema
import numpy as np
import pytest
import tensorflow as tf
from openapi_spec_validator import OpenAPIV31SpecValidator
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

pytestmark = pytest.mark.xdist_group("serving")

ZOO = "/v1/models/zoo"


@pytest.fixture(scope="module")
def document(rest):
    return rest.get("/openapi.json").json()


@pytest.fixture(scope="module")
def check(document):
    """Raises where a value is not what a schema of the document says."""

    def validate(value, schema):
        whole = {"components": document["components"], **schema}
        jsonschema.Draft202012Validator(whole).validate(value)

    return validate


def answer_schema(document, path, verb, status):
    return document["paths"][path][verb]["responses"][str(status)]["content"]["application/json"]["schema"]


@pytest.mark.slow
def test_document_is_valid(document):
    OpenAPIV31SpecValidator(document).validate()


def test_document_has_every_path(document):
    models = {f"{ZOO}{version}{end}" for version in ("", "/versions/123") for end in ("", "/metadata", "/example")}
    runs = {
        f"{ZOO}{version}:{method}" for version in ("", "/versions/123") for method in ("predict", "classify", "regress")
    }
    assert document["paths"].keys() == {"/healthz", "/readyz", "/v1/models"} | models | runs


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", ZOO, f"{ZOO}/versions/123", f"{ZOO}/metadata"])
def test_answers_to_get_are_as_told(rest, document, check, path):
    answer = rest.get(path)
    assert answer.status_code == 200
    check(answer.json(), answer_schema(document, path, "get", 200))


def test_samples_are_as_told_and_so_are_their_answers(rest, document, check):
    taken = 0
    for method in ("predict", "classify", "regress"):
        path = f"{ZOO}:{method}"
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for sample in content["examples"].values():
            check(sample["value"], content["schema"])
            answer = rest.post(path, json=sample["value"])
            check(answer.json(), answer_schema(document, path, "post", answer.status_code))
            taken += answer.status_code == 200
    assert taken >= 15


TAKEN = {
    "columns": {"signature_name": "pick", "inputs": {"a": [1, 2], "b": [True, False]}},
    "rows": {"instances": [1, 2.5]},
    "named-rows": {"instances": [{"x": 1}]},
    "one-column": {"inputs": [1]},
    "base64": {"signature_name": "strings", "instances": [{"b64": "AAA="}, "text"]},
    "several-outputs": {"signature_name": "two_outputs", "instances": [1, 2]},
}
REFUSED = {
    "no-input": {"signature_name": "pick"},
    "both-forms": {"instances": [1], "inputs": [1]},
    "wrong-type": {"instances": ["one"]},
    "missing-input": {"signature_name": "pick", "inputs": {"a": [1]}},
    "unknown-signature": {"signature_name": "none", "instances": [1]},
    "too-deep": {"signature_name": "pick", "inputs": {"a": [1], "b": [1]}},
    "other-object": {"signature_name": "strings", "instances": [{"b65": "AAA="}]},
    "no-rows": {"instances": []},
    "mixed-rows": {"instances": [1, {"x": 1}]},
    "no-base64": {"signature_name": "strings", "instances": [{"b64": "A"}]},
}


@pytest.mark.parametrize("body", TAKEN.values(), ids=TAKEN)
def test_what_is_taken_is_as_told(rest, document, check, body):
    path = f"{ZOO}:predict"
    check(body, document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])
    answer = rest.post(path, json=body)
    assert answer.status_code == 200
    check(answer.json(), answer_schema(document, path, "post", 200))


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_as_told(rest, document, check, body):
    path = f"{ZOO}:predict"
    with pytest.raises(jsonschema.ValidationError):
        check(body, document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])
    answer = rest.post(path, json=body)
    assert answer.status_code == 400
    check(answer.json(), answer_schema(document, path, "post", 400))


def test_fixed_sizes_are_told(serve, rest_client, tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec([None, 2, None], tf.float32, "x")
    module.run = tf.function(lambda x: {"y": tf.reduce_sum(x, axis=2)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "1"), module.run)
    with serve(tmp_path, "sized") as server, rest_client(server) as rest:
        schemas = rest.get("/openapi.json").json()["components"]["schemas"]
    takes, gives = (jsonschema.Draft202012Validator(schemas[f"sized.1.predict.{end}"]) for end in ("takes", "gives"))
    assert takes.is_valid({"instances": [[[1, 2, 3], [4, 5, 6]]]})
    assert not takes.is_valid({"instances": [[[1, 2, 3]]]}), "one row of two"
    assert not takes.is_valid({"instances": [[1, 2]]}), "too flat"
    assert gives.is_valid({"predictions": [[6.0, 15.0]]})
    assert not gives.is_valid({"predictions": [[6.0]]})


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
    """By method and media type: a body, and the signature that it is for."""
    x = np.ones(1, np.float32)
    predict = predict_pb2.PredictRequest()
    predict.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    return {
        "predict": {
            "application/json": (json.dumps({"instances": [1]}), ""),
            "application/x-npy": (array_file(np.save, x), ""),
            "application/x-npz": (array_file(np.savez, x=x), ""),
            "application/x-protobuf": (predict.SerializeToString(), ""),
            "application/octet-stream": (b"bytes", "strings"),
            "image/*": (b"bytes", "strings"),
            "multipart/form-data": ({"x": "1"}, ""),
        },
        "classify": {
            "application/json": (json.dumps({"signature_name": "classify", "examples": [{"x": 1.0}]}), ""),
            "application/x-protobuf": (examples_message(classification_pb2.ClassificationRequest, example), "classify"),
        },
        "regress": {
            "application/json": (json.dumps({"signature_name": "regress", "examples": [{"x": 1.0}]}), ""),
            "application/x-protobuf": (examples_message(regression_pb2.RegressionRequest, example), "regress"),
        },
    }


def post(rest, method, kind, body, signature, accept="*/*"):
    headers, query = {"Accept": accept}, f"?signature_name={signature}"
    if kind == "multipart/form-data":
        files = {name: (None, value) for name, value in body.items()}
        return rest.post(f"{ZOO}:{method}{query}", files=files, headers=headers)
    kind = kind.replace("*", "png")
    return rest.post(f"{ZOO}:{method}{query}", content=body, headers={**headers, "Content-Type": kind})


@pytest.mark.parametrize("method", ["predict", "classify", "regress"])
def test_every_type_of_body_is_taken(rest, document, bodies, method):
    operation = document["paths"][f"{ZOO}:{method}"]["post"]
    told = set(operation["requestBody"]["content"])
    with_pictures = {"image/*", "application/octet-stream", "multipart/form-data"}
    assert told - (set() if method == "predict" else with_pictures) == bodies[method].keys()
    for kind, (body, signature) in bodies[method].items():
        answer = post(rest, method, kind, body, signature)
        assert answer.status_code == 200, (kind, answer.text)


@pytest.mark.parametrize("method", ["predict", "classify", "regress"])
def test_every_type_of_answer_is_given(rest, document, bodies, method):
    body, signature = bodies[method]["application/json"]
    told = document["paths"][f"{ZOO}:{method}"]["post"]["responses"]["200"]["content"]
    assert len(told) == (4 if method == "predict" else 2)
    for kind in told:
        answer = post(rest, method, "application/json", body, signature, accept=kind)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


@pytest.fixture(scope="module")
def forms(document):
    """What the fields of a form for predict may be."""
    return document["paths"][f"{ZOO}:predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]


def test_fields_of_a_form_are_as_told(rest, check, forms):
    taken = [("a", "1"), ("a", "2"), ("b", "true"), ("b", "false")]
    check({"a": [1, 2], "b": [True, False]}, forms)
    for other in ({"a": [1, 2]}, {"a": [1], "b": [1]}, {"a": [1], "b": [True], "c": [1]}, {"a": 1, "b": True}):
        with pytest.raises(jsonschema.ValidationError):
            check(other, forms)
    answer = rest.post(f"{ZOO}:predict", files=[(name, (None, value)) for name, value in taken])
    assert answer.json() == {"predictions": [1, -2]}
    for fields in (taken[:2], [("a", "1"), ("b", "1")], [*taken[:1], *taken[2:3], ("c", "1")]):
        answer = rest.post(f"{ZOO}:predict", files=[(name, (None, value)) for name, value in fields])
        assert answer.status_code == 400


def test_what_is_for_no_signature_is_not_told(serve, rest_client, tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.bfloat16, "x")
    module.run = tf.function(lambda x: {"y": x, "z": x}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "1"), module.run)
    with serve(tmp_path, "brain") as server, rest_client(server) as rest:
        operation = rest.get("/openapi.json").json()["paths"]["/v1/models/brain:predict"]["post"]
    arrays = {"application/x-npz", "application/x-protobuf"}
    assert operation["requestBody"]["content"].keys() == arrays | {"application/x-npy"}
    assert operation["responses"]["200"]["content"].keys() == arrays, "two outputs"


def test_images_are_told_where_examples_may_hold_them(serve, rest_client, tmp_path):
    module = tf.Module()

    def parsed(inputs, name):
        features = tf.io.parse_example(inputs, {name: tf.io.FixedLenFeature([], tf.string)})
        return tf.cast(tf.strings.length(features[name]), tf.float32)

    spec = tf.TensorSpec([None], tf.string, "inputs")
    module.images = tf.function(lambda inputs: {"scores": parsed(inputs, "image/encoded")[:, None]}, [spec])
    module.texts = tf.function(lambda inputs: {"outputs": parsed(inputs, "text")}, [spec])
    tf.saved_model.save(module, str(tmp_path / "1"), {"images": module.images, "texts": module.texts})
    with serve(tmp_path, "two") as server, rest_client(server) as rest:
        paths = rest.get("/openapi.json").json()["paths"]
        classify, regress = (
            paths[f"/v1/models/two:{method}"]["post"]["requestBody"]["content"] for method in ("classify", "regress")
        )
        answer = rest.post("/v1/models/two:classify", content=b"abc", headers={"Content-Type": "image/png"})
    assert classify.keys() - regress.keys() == {"image/*", "application/octet-stream", "multipart/form-data"}
    assert answer.json() == {"results": [[["", 3.0]]]}


@pytest.mark.slow
def test_tokens_are_told_where_they_are_needed(serve, rest_client, zoo_path, tmp_path, document):
    tokens = tmp_path / "tokens.json"
    listed = [{"name": "all", "token": "a"}, {"name": "other", "token": "b", "models": []}]
    tokens.write_text(json.dumps({"tokens": listed}))
    with serve(zoo_path, auth_token_file=str(tokens)) as server, rest_client(server) as rest:
        guarded = rest.get("/openapi.json", headers={"Authorization": "Bearer a"}).json()
        answers = [rest.get(ZOO), rest.get(ZOO, headers={"Authorization": "Bearer b"}), rest.get("/healthz")]
    OpenAPIV31SpecValidator(guarded).validate()
    assert guarded["components"]["securitySchemes"] == {"bearerAuth": {"type": "http", "scheme": "bearer"}}
    assert guarded["security"] == [{"bearerAuth": []}]
    assert [each.status_code for each in answers] == [401, 403, 200]
    open_paths = {path for path, each in guarded["paths"].items() if each.get("get", {}).get("security") == []}
    assert open_paths == {"/healthz", "/readyz"}
    for answer in answers[:2]:
        schema = answer_schema(guarded, ZOO, "get", answer.status_code)
        whole = {"components": guarded["components"], **schema}
        jsonschema.Draft202012Validator(whole).validate(answer.json())
    assert "401" not in guarded["paths"]["/healthz"]["get"]["responses"]
    assert "security" not in document
    assert "401" not in document["paths"][ZOO]["get"]["responses"]


def test_samples_are_not_larger_than_somebody_reads(serve, rest_client, tmp_path):
    module = tf.Module()
    signatures = {}
    for name, size in {"small": 8, "large": 400, "too_large": 4096}.items():
        spec = tf.TensorSpec([None, size, size], tf.float32, "x")
        signatures[name] = tf.function(lambda x: {"y": x}, input_signature=[spec])
        setattr(module, name, signatures[name])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures)
    with serve(tmp_path, "sizes") as server, rest_client(server) as rest:
        document = rest.get("/openapi.json").json()
        large = rest.get("/v1/models/sizes/example?signature_name=large")
        too_large = rest.get("/v1/models/sizes/example?signature_name=too_large")
    for path in ("/v1/models/sizes:predict", "/v1/models/sizes/versions/1:predict"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["examples"].keys() == {"small"}
    assert np.shape(large.json()["instances"]) == (1, 400, 400)
    message = 'A body for signature "too_large" has 16777216 values, and an example at most 1048576'
    assert (too_large.status_code, too_large.json()) == (501, {"error": message})
