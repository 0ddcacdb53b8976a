"""The gRPC API behind a real socket, asked with tensorflow-serving-api's own stubs."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    predict_pb2,
)

pytestmark = pytest.mark.xdist_group("serving")


def classify_request(signature, *examples, context=None):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "zoo"
    request.model_spec.signature_name = signature
    if context is None:
        request.input.example_list.examples.extend(examples)
    else:
        request.input.example_list_with_context.context.CopyFrom(context)
        request.input.example_list_with_context.examples.extend(examples)
    return request


@pytest.mark.parametrize("as_content", [False, True], ids=["typed-fields", "tensor-content"])
def test_predict_agrees_with_numpy(stubs, predict_request, as_content):
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    request = predict_request(x=x)
    if not as_content:
        request.inputs["x"].ClearField("tensor_content")
        request.inputs["x"].float_val.extend(x.tolist())
    answer = stubs.prediction.Predict(request)
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), x / 2 + 2)


def test_answer_holds_typed_fields_and_the_model_that_gave_it(stubs, predict_request):
    answer = stubs.prediction.Predict(predict_request(x=np.float32([1, 4])))
    assert list(answer.outputs["y"].float_val) == [2.5, 4.0]
    assert answer.outputs["y"].tensor_content == b""
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("zoo", 123, "serving_default")


def test_integers_and_truth_values_agree_with_numpy(stubs, predict_request):
    a, b = np.array([2**53 + 1, -5, 7]), np.array([True, False, True])
    answer = stubs.prediction.Predict(predict_request("pick", version=123, a=a, b=b))
    assert list(answer.outputs["y"].int64_val) == np.where(b, a, -a).tolist()


def test_halves_agree_with_numpy(stubs, predict_request):
    x = np.float16([0.5, -65504, 1e-7])
    answer = stubs.prediction.Predict(predict_request("halves", x=x))
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), x)


def test_bytes_come_back_unchanged(stubs, predict_request):
    request = predict_request("strings", s=np.array([b"\xff\x00", b""], object))
    answer = stubs.prediction.Predict(request)
    assert list(answer.outputs["x_bytes"].string_val) == [b"\xff\x00", b""]


def test_scalar_output_has_no_dimensions(stubs, predict_request):
    answer = stubs.prediction.Predict(predict_request("total", x=np.float32([1, 2])))
    assert list(answer.outputs["sum"].float_val) == [3.0]
    assert len(answer.outputs["sum"].tensor_shape.dim) == 0


def test_output_filter_selects(stubs, predict_request):
    answer = stubs.prediction.Predict(predict_request("two_outputs", outputs=["count"], x=np.float32([5, 6])))
    assert list(answer.outputs) == ["count"]
    assert list(answer.outputs["count"].int_val) == [0, 1]


def test_declared_shape_is_not_enforced(stubs, predict_request):
    answer = stubs.prediction.Predict(predict_request("identity", x=np.float32([[1, 2]])))
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), [[1, 2]])


ONE = np.float32([1])
HELP = '\nInputs of signature "serving_default": x: float [?].'
PREDICT_ERRORS = {
    "no-name": (
        {"model": "", "x": ONE},
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    "unknown-model": (
        {"model": "m", "x": ONE},
        "NOT_FOUND",
        "Servable not found for request: Latest(m)",
    ),
    "unknown-version": (
        {"version": 7, "x": ONE},
        "NOT_FOUND",
        "Servable not found for request: Specific(zoo, 7)",
    ),
    "unknown-label": (
        {"label": "x", "x": ONE},
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: x",
    ),
    "unknown-signature": (
        {"signature": "s", "x": ONE},
        "FAILED_PRECONDITION",
        'Serving signature key "s" not found.',
    ),
    "missing-input": (
        {"signature": "pick", "a": np.array([1])},
        "INVALID_ARGUMENT",
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}."
        '\nInputs of signature "pick": a: int64 [?], b: bool [?].',
    ),
    "extra-input": (
        {"x": ONE, "z": ONE},
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}."
        + HELP,
    ),
    "other-input": (
        {"z": ONE},
        "INVALID_ARGUMENT",
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
        "provided. Inputs expected to be in the request {z}, or default input alias set: " + HELP,
    ),
    "wrong-type": (
        {"x": np.array([1])},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but int64 is provided" + HELP,
    ),
    "unknown-output": (
        {"outputs": ["z"], "x": ONE},
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
    ),
    "output-twice": (
        {"outputs": ["y", "y"], "x": ONE},
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: y",
    ),
    "operation-refuses": (
        {"signature": "pairs", "x": ONE},
        "INVALID_ARGUMENT",
        "Input to reshape is a tensor with 1 values, but the requested shape requires a multiple of 2\n"
        "\t [[{{node Reshape}}]]",
    ),
}


@pytest.mark.parametrize(("request_parts", "code", "message"), PREDICT_ERRORS.values(), ids=PREDICT_ERRORS)
def test_predict_error_is_exactly(stubs, predict_request, request_parts, code, message, status_of):
    request = predict_request(**request_parts)
    assert status_of(stubs.prediction.Predict, request) == (code, message)


def test_request_without_a_model_spec(stubs, status_of):
    missing = ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert status_of(stubs.prediction.Predict, predict_pb2.PredictRequest()) == missing
    assert status_of(stubs.prediction.Classify, classification_pb2.ClassificationRequest()) == missing
    assert status_of(stubs.model.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()) == missing


def test_tensor_that_does_not_parse(stubs, predict_request, status_of):
    request = predict_request(x=ONE)
    request.inputs["x"].tensor_content = b"abc"
    assert status_of(stubs.prediction.Predict, request) == ("INVALID_ARGUMENT", "tensor parsing error: x")


def grown(signature, **shapes):
    """A message whose tensors have one value each, and these shapes."""
    request = predict_pb2.PredictRequest(model_spec={"name": "zoo", "signature_name": signature})
    for name, size in shapes.items():
        request.inputs[name].tensor_shape.dim.add(size=size)
    for name, (dtype, field, value) in {"a": (9, "int64_val", 3), "b": (10, "bool_val", True)}.items():
        request.inputs[name].dtype = dtype
        getattr(request.inputs[name], field).append(value)
    return request


def test_values_that_are_missing_repeat_the_last(stubs):
    answer = stubs.prediction.Predict(grown("pick", a=100_000, b=100_000), timeout=20)
    assert list(answer.outputs["y"].int64_val) == [3] * 100_000


def test_tensors_of_a_message_grow_together_no_more_than_a_body(stubs, rest, status_of):
    request = grown("pick", a=7_000_000, b=60_000_000)  # 56 and 60 MB
    code, message = status_of(stubs.prediction.Predict, request, timeout=20)
    text = "tensor parsing error: the values that are missing take 115999991 bytes, and may take 104857600. "
    text += "a: 1 values of shape (7000000,), b: 1 values of shape (60000000,)"
    assert (code, message) == ("INVALID_ARGUMENT", text)
    headers = {"Content-Type": "application/x-protobuf"}
    answer = rest.post("/v1/models/zoo:predict", content=request.SerializeToString(), headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"error": text})


def test_long_message_is_cut(stubs, predict_request, status_of):
    code, message = status_of(stubs.prediction.Predict, predict_request("s" * 2000, x=ONE))
    assert code == "FAILED_PRECONDITION"
    assert message == f'Serving signature key "{"s" * 2000}"'[:1024] + "...TRUNCATED"


def test_deadline_ends_the_run(serve, grpc_stubs, predict_request, zoo_path, status_of):
    # The one thread answers again only once the run has ended.
    with serve(zoo_path, grpc_max_threads=1) as server, grpc_stubs(server) as stubs:
        slow = predict_request("slow", n=np.int64(10**9))
        assert status_of(stubs.prediction.Predict, slow, timeout=0.3)[0] == "DEADLINE_EXCEEDED"
        answer = stubs.prediction.Predict(predict_request(x=ONE), timeout=10)
        assert list(answer.outputs["y"].float_val) == [2.5]


def test_classify(stubs, example):
    answer = stubs.prediction.Classify(classify_request("classify", example(x=0.25), example(x=1)))
    rows = [[(each.label, each.score) for each in row.classes] for row in answer.result.classifications]
    assert rows == [[("cat", 0.25), ("dog", 0.75)], [("cat", 1.0), ("dog", 0.0)]]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("zoo", 123, "classify")


def test_context_joins_every_example(stubs, example):
    request = classify_request("only_scores", example(x=0.25), example(x=1), context=example(shift=2))
    answer = stubs.prediction.Classify(request)
    rows = [[(each.label, each.score) for each in row.classes] for row in answer.result.classifications]
    assert rows == [[("", 2.25), ("", 0.75)], [("", 3.0), ("", 0.0)]]


CLASSIFY_ERRORS = {
    "empty": ("classify", 0, "INVALID_ARGUMENT", "Input is empty."),
    "unknown-signature": (
        "s",
        1,
        "INVALID_ARGUMENT",
        "No signature was found with the name: s",
    ),
    "several-inputs": ("pick", 1, "INVALID_ARGUMENT", "Expected one input Tensor."),
    "three-outputs": ("three_outputs", 1, "INVALID_ARGUMENT", "Expected one or two output Tensors, found 3"),
    "flat-scores": (
        "flat_scores",
        1,
        "INVALID_ARGUMENT",
        "Expected Tensor shape: [batch_size num_classes] but got [1]",
    ),
    "wide-scores": (
        "wide_scores",
        1,
        "INVALID_ARGUMENT",
        "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
    ),
    "short-scores": (
        "short_scores",
        2,
        "INVALID_ARGUMENT",
        "Expected scores output batch size of 2. Got: 1",
    ),
    "unequal-classes": (
        "unequal_classes",
        1,
        "INVALID_ARGUMENT",
        "Tensors class and score should match in dim_size(1). Got 1 vs. 2",
    ),
}


@pytest.mark.parametrize(("signature", "number", "code", "message"), CLASSIFY_ERRORS.values(), ids=CLASSIFY_ERRORS)
def test_classify_error_is_exactly(stubs, status_of, example, signature, number, code, message):
    request = classify_request(signature, *[example(x=1)] * number)
    assert status_of(stubs.prediction.Classify, request) == (code, message)


def test_classify_needs_an_input_of_that_name(stubs, status_of, example):
    code, message = status_of(stubs.prediction.Classify, classify_request("half_plus_two", example(x=1)))
    assert code == "FAILED_PRECONDITION"
    assert message.startswith('No classification inputs found in SignatureDef: inputs {\n  key: "x"')


def test_predict_runs_a_classify_signature(stubs, predict_request, example):
    inputs = np.array([example(x=0.5).SerializeToString()], object)
    answer = stubs.prediction.Predict(predict_request("classify", inputs=inputs))
    assert list(answer.outputs["classes"].string_val) == [b"cat", b"dog"]
    assert list(answer.outputs["scores"].float_val) == [0.5, 0.5]


def test_status(stubs):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "zoo"
    (status,) = stubs.model.GetModelStatus(request).model_version_status
    assert (status.version, status.state) == (123, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert (status.status.error_code, status.status.error_message) == (0, "")


def test_status_errors(stubs, status_of):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "m"
    assert status_of(stubs.model.GetModelStatus, request) == (
        "NOT_FOUND",
        "Could not find any versions of model m",
    )
    request.model_spec.version.value = 7
    assert status_of(stubs.model.GetModelStatus, request) == (
        "NOT_FOUND",
        "Could not find version 7 of model m",
    )


def test_message_larger_than_grpc_allows_by_default(stubs, predict_request):
    x = np.zeros(2_000_000, np.float32)
    answer = stubs.prediction.Predict(predict_request(x=x))
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), x + 2)
