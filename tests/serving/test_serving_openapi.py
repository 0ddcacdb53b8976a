"""The OpenAPI document: whether it is one, and whether requests and answers are as it says."""

import jsonschema
import pytest
import tensorflow as tf
from openapi_spec_validator import OpenAPIV31SpecValidator

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
