"""What a server tells of its models, and whether what it says they take is what they take."""

import base64

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, model_management_pb2

from serving.models.signature_defs import find_features
from serving.wire.signatures import Feature

pytestmark = pytest.mark.xdist_group("serving")

ZOO = "/v1/models/zoo"
STATUS = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_models_are_listed(rest):
    answer = rest.get("/v1/models")
    assert answer.status_code == 200
    assert answer.json() == {"models": [{"name": "zoo", "version_labels": {}, "model_version_status": [STATUS]}]}


def test_labels_and_models_that_went_are_listed(serve, rest_client, grpc_stubs, zoo_path, save_plus, tmp_path):
    save_plus(tmp_path / "plus" / "1", 1)
    with serve(tmp_path / "plus", "plus") as server, rest_client(server) as rest, grpc_stubs(server) as stubs:
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(name="zoo", base_path=str(zoo_path), model_platform="tensorflow")
        stubs.model.HandleReloadConfigRequest(request, timeout=20)
        request.config.model_config_list.config[0].version_labels["stable"] = 123
        stubs.model.HandleReloadConfigRequest(request, timeout=20)
        plus, zoo = rest.get("/v1/models").json()["models"]
        example = rest.get(f"{ZOO}/labels/stable/example")
    assert (plus["name"], plus["version_labels"]) == ("plus", {})
    assert plus["model_version_status"][0]["state"] in ("UNLOADING", "END")
    assert zoo == {"name": "zoo", "version_labels": {"stable": "123"}, "model_version_status": [STATUS]}
    assert example.headers["link"] == f'<{ZOO}/labels/stable:predict>; rel="related"'


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("POST", f"{ZOO}:predict", {"instances": [1]}),
        ("POST", f"{ZOO}/versions/123:classify", {"signature_name": "classify", "examples": [{"x": 0.5}]}),
        ("POST", f"{ZOO}:regress", {"signature_name": "regress", "examples": [{"x": 0.5}]}),
        ("GET", f"{ZOO}/metadata", None),
        ("GET", f"{ZOO}/example", None),
    ],
    ids=["predict", "classify", "regress", "metadata", "example"],
)
def test_version_that_answered_is_in_a_header(rest, verb, path, body):
    answer = rest.request(verb, path, json=body)
    assert (answer.status_code, answer.headers["x-model-version"]) == (200, "123")


# Signatures whose sample is no good, as nothing that they declare tells why.
UNTOLD = {
    "regress_short": "Input batch size did not match output batch size: 1 vs. 0",
    "short_scores": "Expected scores output batch size of 1. Got: 0",
    "unequal_classes": "Tensors class and score should match in dim_size(1). Got 1 vs. 2",
    "pairs": "Input to reshape is a tensor with 1 values, but the requested shape requires a multiple of 2",
    "uneven_outputs": "Tensor name: b has inconsistent batch size: 0 expecting: 1",
}


def zoo_signatures(rest):
    return rest.get(f"{ZOO}/metadata").json()["metadata"]["signature_def"]["signature_def"]


def test_sample_of_every_signature_is_taken(rest):
    refused = {}
    for name in zoo_signatures(rest):
        sample = rest.get(f"{ZOO}/example", params={"signature_name": name})
        if sample.status_code == 200:
            target = sample.headers["link"].partition(">")[0].removeprefix("<")
            answer = rest.post(target, content=sample.content)
            if answer.status_code != 200:
                refused[name] = answer.json()["error"]
        else:
            refused[name] = f"{sample.status_code} {sample.json()['error']}"
    assert refused.pop("halves") == "501 JSON cannot hold x, which is of type half"
    for name, text in UNTOLD.items():
        assert refused.pop(name).startswith(text)
    assert refused == {}


SAMPLES = {
    "default": ("", "predict", {"instances": [0.5]}),
    "several-inputs": ("pick", "predict", {"signature_name": "pick", "instances": [{"a": 1, "b": True}]}),
    "scalar": ("slow", "predict", {"signature_name": "slow", "inputs": {"n": 1}}),
    "strings": ("only_text", "predict", {"signature_name": "only_text", "instances": ["text"]}),
    "classify": ("classify", "classify", {"signature_name": "classify", "examples": [{"x": [0.5]}]}),
    "regress": ("regress", "regress", {"signature_name": "regress", "examples": [{"x": [0.5]}]}),
}


@pytest.mark.parametrize(("name", "method", "body"), SAMPLES.values(), ids=SAMPLES)
def test_sample_is_exactly(rest, name, method, body):
    answer = rest.get(f"{ZOO}/example", params={"signature_name": name} if name else {})
    assert answer.json() == body
    assert answer.headers["link"] == f'<{ZOO}:{method}>; rel="related"'


def test_sample_of_what_is_not_there(rest):
    answer = rest.get(f"{ZOO}/example?signature_name=s")
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        'Serving signature name: "s" not found in signature def',
    )
    assert rest.get("/v1/models/m/example").status_code == 404
    assert rest.post(f"{ZOO}/example").json() == {"error": f"Malformed request: POST {ZOO}/example"}


def test_samples_have_the_declared_sizes_and_a_limit(serve, rest_client, tmp_path):
    module = tf.Module()
    sizes = {"large": (None, 400, 400), "too_large": (None, 4096, 4096), "deep": (None, 512, 512, 512, 1)}
    signatures = {
        name: tf.function(lambda x: {"y": x}, [tf.TensorSpec(shape, tf.float32, "x")]) for name, shape in sizes.items()
    }
    a, b = tf.TensorSpec([None], tf.float32, "a"), tf.TensorSpec([5], tf.float32, "b")
    signatures["uneven"] = tf.function(lambda a, b: {"y": tf.reduce_sum(a) + b}, [a, b])
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(tmp_path / "1"), signatures)
    with serve(tmp_path) as server, rest_client(server) as rest:
        samples = {name: rest.get(f"{ZOO}/example?signature_name={name}") for name in signatures}
        answer = rest.post(f"{ZOO}:predict", json=samples["uneven"].json())
    assert np.shape(samples["large"].json()["instances"]) == (1, 400, 400)
    for name, size in {"too_large": 4096**2, "deep": 512**3}.items():
        message = f'A body for signature "{name}" has {size} values, and an example at most 1048576'
        assert (samples[name].status_code, samples[name].json()) == (501, {"error": message})
    assert samples["uneven"].json() == {"signature_name": "uneven", "inputs": {"a": [0.5], "b": [0.5] * 5}}
    assert answer.json() == {"outputs": [1.0] * 5}


@pytest.fixture(scope="module")
def pictures_path(tmp_path_factory):
    """A model that takes pictures as numbers and as files, and examples that hold them."""
    module = tf.Module()

    def mean(images):
        return {"mean": tf.reduce_mean(images, axis=(1, 2, 3))}

    def decoded(files):
        decode = lambda each: tf.cast(tf.io.decode_image(each, 3, expand_animations=False), tf.float32)  # noqa: E731
        return mean(tf.map_fn(decode, files, fn_output_signature=tf.TensorSpec([None, None, 3], tf.float32)))

    def classified(inputs):
        features = {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "weights": tf.io.FixedLenFeature([2, 3], tf.int64),
            "shift": tf.io.FixedLenFeature([], tf.float32, 0.0),
            "tags": tf.io.VarLenFeature(tf.string),
            "parts": tf.io.RaggedFeature(tf.float32),
        }
        parsed = tf.io.parse_example(inputs, features)
        means = decoded(parsed["image/encoded"])["mean"] + parsed["shift"]
        return {"scores": means[:, None] * tf.cast(parsed["weights"], tf.float32)[:, 0]}

    strings = tf.TensorSpec([None], tf.string)
    module.numbers = tf.function(mean, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "images")])
    module.files = tf.function(decoded, input_signature=[tf.TensorSpec(strings.shape, tf.string, "image_bytes")])
    module.examples = tf.function(classified, input_signature=[tf.TensorSpec(strings.shape, tf.string, "inputs")])
    signatures = {"serving_default": module.numbers, "files": module.files, "examples": module.examples}
    base_path = tmp_path_factory.mktemp("pictures")
    tf.saved_model.save(module, str(base_path / "1"), signatures)
    return base_path


@pytest.fixture(scope="module")
def pictures_server(serve, pictures_path):
    with serve(pictures_path, "pictures") as server:
        yield server


@pytest.fixture(scope="module")
def pictures(pictures_server, rest_client):
    with rest_client(pictures_server) as client:
        yield client


def test_samples_of_pictures_are_pictures(pictures):
    numbers = pictures.get("/v1/models/pictures/example").json()
    assert np.shape(numbers["instances"]) == (1, 32, 32, 3)
    files = pictures.get("/v1/models/pictures/example?signature_name=files").json()
    (picture,) = files["instances"]
    assert tf.io.decode_png(base64.b64decode(picture["b64"])).shape == (32, 32, 3)
    examples = pictures.get("/v1/models/pictures/example?signature_name=examples").json()
    (example,) = examples["examples"]
    assert example == {"image/encoded": [picture], "weights": [1] * 6}
    for body, method in ((numbers, "predict"), (files, "predict"), (examples, "classify")):
        assert pictures.post(f"/v1/models/pictures:{method}", json=body).status_code == 200


def test_features_of_the_older_parsing_operations():
    with tf.Graph().as_default() as graph:
        serialized = tf.compat.v1.placeholder(tf.string, [None], "examples")
        key = {"x": tf.io.FixedLenFeature([2], tf.float32)}
        one = tf.io.parse_single_example(serialized[0], {"y": tf.io.FixedLenFeature([], tf.int64, 7)})["y"]
        sparse = {"sparse_keys": ["s"], "sparse_types": [tf.string]}
        old = tf.raw_ops.ParseExample(
            serialized=serialized,
            names=[],
            dense_keys=["d"],
            dense_defaults=[tf.constant([], tf.string)],
            dense_shapes=[[]],
            **sparse,
        )
        tf.io.parse_example(serialized, key, name="unused")
        names = [one.name, old.dense_values[0].name]
    assert find_features(graph.as_graph_def(), names) == {
        "y": Feature("int64", 1, is_required=False),
        "d": Feature("string", 1, is_required=True),
    }


HELP = {
    "wrong-type": (
        {"signature_name": "pick", "inputs": {"a": ["one"], "b": [True]}},
        'JSON Value: "one" Type: String is not of expected type: int64',
    ),
    "missing": (
        {"signature_name": "pick", "inputs": {"a": [1]}},
        "Missing named input: b in 'inputs' object.",
    ),
    "unknown": (
        {"signature_name": "pick", "instances": [{"a": 1, "b": True, "c": 0}]},
        "Failed to process element: 0 key: c of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON object: does not have named input: c",
    ),
}


@pytest.mark.parametrize(("body", "text"), HELP.values(), ids=HELP)
def test_error_tells_what_is_taken(rest, body, text):
    answer = rest.post(f"{ZOO}/versions/123:predict", json=body)
    assert answer.status_code == 400
    message, _, help_ = answer.json()["error"].rpartition("\n")
    assert message == text
    assert help_ == (
        'Inputs of signature "pick": a: int64 [?], b: bool [?]. '
        f"A body that fits: GET {ZOO}/versions/123/example?signature_name=pick"
    )


def test_run_that_fails_on_another_shape_tells_what_is_taken(pictures):
    answer = pictures.post("/v1/models/pictures:predict", json={"instances": [[1, 2]]})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(
        '\nInputs of signature "serving_default": images: float [?,?,?,3]. '
        "A body that fits: GET /v1/models/pictures/example"
    )


def test_error_over_grpc_tells_what_is_taken(stubs, predict_request, status_of):
    status = status_of(stubs.prediction.Predict, predict_request("pick", a=np.float32([1]), b=np.array([True])))
    assert status == (
        "INVALID_ARGUMENT",
        'Expects arg[0] to be int64 but float is provided\nInputs of signature "pick": a: int64 [?], b: bool [?].',
    )


FEATURES = (
    '\nInputs of signature "examples": inputs: string [?]. '
    "Features of a tf.Example: image/encoded: string, shift: float (may be left out), weights: int64 [6]."
)
EXAMPLE = " A body that fits: GET /v1/models/pictures/example?signature_name=examples"
MISFITS = {
    "missing-feature": {"examples": [{"weights": [1] * 6}]},
    "too-few-values": {"examples": [{"image/encoded": "", "weights": [1]}]},
    "other-type": {"examples": [{"image/encoded": "", "weights": [0.5] * 6}]},
    "no-examples": {"instances": [1]},
    "no-object": {"examples": [1]},
    "empty": {"examples": []},
}


@pytest.mark.parametrize("body", MISFITS.values(), ids=MISFITS)
def test_error_of_examples_tells_which_features_are_parsed(pictures, body):
    answer = pictures.post("/v1/models/pictures:classify", json={"signature_name": "examples", **body})
    assert answer.status_code == 400
    text = answer.json()["error"]
    assert text.endswith(FEATURES + EXAMPLE)
    assert len(text) > len(FEATURES + EXAMPLE), "what is wrong comes first"


def test_examples_for_predict_that_do_not_fit_tell_the_same(pictures):
    body = {"signature_name": "examples", "instances": [{"b64": ""}]}
    answer = pictures.post("/v1/models/pictures:predict", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(FEATURES + EXAMPLE)


def test_body_that_does_not_fit_is_told_before_that_there_is_no_model(rest):
    answer = rest.post("/v1/models/none:classify", json={"examples": []})
    assert answer.status_code == 400
    assert answer.json()["error"] == "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"


def test_error_of_examples_over_grpc_tells_which_features_are_parsed(pictures_server, grpc_stubs, status_of):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "pictures", "examples"
    request.input.example_list.examples.add().features.feature["weights"].int64_list.value.extend([1] * 6)
    with grpc_stubs(pictures_server) as stubs:
        code, text = status_of(stubs.prediction.Classify, request)
    assert code == "INVALID_ARGUMENT"
    assert "Feature: image/encoded" in text.partition("\n")[0]
    assert text.endswith(FEATURES)
