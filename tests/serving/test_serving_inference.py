"""Regress, MultiInference and GetModelMetadata over gRPC."""

import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, inference_pb2, regression_pb2

pytestmark = pytest.mark.xdist_group("serving")
v1 = tf.compat.v1

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory):
    """A TF1 graph whose signatures share their input, and that counts in a variable how often it was run."""
    base_path = tmp_path_factory.mktemp("shared")
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = v1.placeholder(tf.string, [None])
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        runs = v1.get_variable("runs", initializer=0.0, use_resource=True)
        with tf.control_dependencies([runs.assign_add(1)]):
            count = tf.fill(tf.shape(x), tf.identity(runs.read_value()))
        methods = {
            "classify": (CLASSIFY, {"scores": tf.stack([x, 1 - x], axis=1)}),
            "regress": (REGRESS, {"outputs": x * 2}),
            "runs": (REGRESS, {"outputs": count}),
        }
        signatures = {
            name: v1.saved_model.build_signature_def(
                {"inputs": v1.saved_model.build_tensor_info(inputs)},
                {alias: v1.saved_model.build_tensor_info(tensor) for alias, tensor in outputs.items()},
                method,
            )
            for name, (method, outputs) in methods.items()
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(base_path / "1"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return base_path


@pytest.fixture(scope="module")
def shared(serve, grpc_stubs, shared_path):
    with (
        serve(shared_path, "shared", enable_signature_method_name_check=True) as server,
        grpc_stubs(server) as stubs,
    ):
        yield stubs


def regress_request(signature, *examples, model="zoo"):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(examples)
    return request


def multi_request(*tasks, model="zoo", examples=()):
    request = inference_pb2.MultiInferenceRequest()
    for method, signature in tasks:
        request.tasks.add(method_name=method, model_spec={"name": model, "signature_name": signature})
    request.input.example_list.examples.extend(examples)
    return request


@pytest.mark.parametrize("signature", ["regress", "regress_column"])
def test_regress(stubs, example, signature):
    answer = stubs.prediction.Regress(regress_request(signature, example(x=0.25), example(x=-1)))
    assert [each.value for each in answer.result.regressions] == [2.5, -10]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("zoo", 123, signature)


REGRESS_ERRORS = {
    "empty": ("regress", 0, "Input is empty."),
    "unknown-signature": ("s", 1, "No signature was found with the name: s"),
    "several-inputs": ("pick", 1, "Expected one input Tensor."),
    "several-outputs": ("classify", 1, "Expected one output Tensor."),
    "wide": (
        "regress_wide",
        1,
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]",
    ),
    "double": ("regress_double", 1, "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    "short": ("regress_short", 2, "Input batch size did not match output batch size: 2 vs. 1"),
}


@pytest.mark.parametrize(("signature", "number", "message"), REGRESS_ERRORS.values(), ids=REGRESS_ERRORS)
def test_regress_error_is_exactly(stubs, status_of, example, signature, number, message):
    request = regress_request(signature, *[example(x=1)] * number)
    assert status_of(stubs.prediction.Regress, request) == ("INVALID_ARGUMENT", message)


@pytest.mark.parametrize(
    ("signature", "noun"), [("half_plus_two", "inputs"), ("only_scores", "outputs")], ids=["input", "output"]
)
def test_regress_needs_tensors_of_those_names(stubs, status_of, example, signature, noun):
    code, message = status_of(stubs.prediction.Regress, regress_request(signature, example(x=1)))
    assert code == "FAILED_PRECONDITION"
    assert message.startswith(f"No regression {noun} found in SignatureDef: inputs {{\n  key: ")


def test_multi_inference_is_one_run(shared, example):
    runs = regress_request("runs", example(x=0), model="shared")
    before = shared.prediction.Regress(runs).result.regressions[0].value
    tasks = [(REGRESS, "runs"), (CLASSIFY, "classify"), (REGRESS, "regress")]
    answer = shared.prediction.MultiInference(
        multi_request(*tasks, model="shared", examples=[example(x=0.25), example(x=1)])
    )
    counted, classified, regressed = answer.results
    assert [each.value for each in counted.regression_result.regressions] == [before + 1] * 2
    rows = [[each.score for each in row.classes] for row in classified.classification_result.classifications]
    assert rows == [[0.25, 0.75], [1, 0]]
    assert [each.value for each in regressed.regression_result.regressions] == [0.5, 2]
    named = [
        (each.model_spec.name, each.model_spec.version.value, each.model_spec.signature_name) for each in answer.results
    ]
    assert named == [("shared", 1, "runs"), ("shared", 1, "classify"), ("shared", 1, "regress")]
    assert shared.prediction.Regress(runs).result.regressions[0].value == before + 2


def test_multi_inference_over_signatures_with_inputs_of_their_own(stubs, example):
    tasks = [(CLASSIFY, "classify"), (REGRESS, "regress")]
    classified, regressed = stubs.prediction.MultiInference(multi_request(*tasks, examples=[example(x=0.5)])).results
    assert [each.score for each in classified.classification_result.classifications[0].classes] == [0.5, 0.5]
    assert [each.value for each in regressed.regression_result.regressions] == [5]


MULTI_ERRORS = {
    "no-tasks": ((), "zoo", "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    "unknown-model": (((REGRESS, "regress"),), "m", "NOT_FOUND", "Servable not found for request: Latest(m)"),
    "twice": (
        ((REGRESS, "regress"), (REGRESS, "regress")),
        "zoo",
        "INVALID_ARGUMENT",
        "Duplicate evaluation of signature: regress",
    ),
    "unknown-signature": (
        ((REGRESS, "s"),),
        "zoo",
        "INVALID_ARGUMENT",
        "Requested signature not found in model graph: s",
    ),
    "unknown-method": (
        (("tensorflow/serving/predict", "regress"),),
        "zoo",
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    ),
}


@pytest.mark.parametrize(("tasks", "model", "code", "message"), MULTI_ERRORS.values(), ids=MULTI_ERRORS)
def test_multi_inference_error_is_exactly(stubs, status_of, example, tasks, model, code, message):
    request = multi_request(*tasks, model=model, examples=[example(x=1)])
    assert status_of(stubs.prediction.MultiInference, request) == (code, message)


def test_multi_inference_over_two_models(stubs, status_of, example):
    request = multi_request((REGRESS, "regress"), (CLASSIFY, "classify"), examples=[example(x=1)])
    request.tasks[1].model_spec.name = "other"
    assert status_of(stubs.prediction.MultiInference, request) == (
        "INVALID_ARGUMENT",
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    )


def test_method_names_are_checked_where_asked_for(shared, status_of, example):
    request = regress_request("classify", example(x=1), model="shared")
    assert status_of(shared.prediction.Regress, request) == (
        "INVALID_ARGUMENT",
        f"Expected regression signature method_name to be {REGRESS}. Was: {CLASSIFY}",
    )


def metadata_request(*fields, model="zoo"):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


def test_metadata_holds_the_signatures(stubs):
    answer = stubs.prediction.GetModelMetadata(metadata_request("signature_def"))
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("zoo", 123)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    pick = signatures.signature_def["pick"]
    assert pick.method_name == "tensorflow/serving/predict"
    assert {name: info.dtype for name, info in pick.inputs.items()} == {
        "a": tf.int64.as_datatype_enum,
        "b": tf.bool.as_datatype_enum,
    }


METADATA_ERRORS = {
    "no-spec": (
        get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]),
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "no-field": (
        metadata_request(),
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    "unknown-field": (metadata_request("weights"), "INVALID_ARGUMENT", "Metadata field weights is not supported"),
    "unknown-model": (
        metadata_request("signature_def", model="m"),
        "NOT_FOUND",
        "Servable not found for request: Latest(m)",
    ),
}


@pytest.mark.parametrize(("request_", "code", "message"), METADATA_ERRORS.values(), ids=METADATA_ERRORS)
def test_metadata_error_is_exactly(stubs, status_of, request_, code, message):
    assert status_of(stubs.prediction.GetModelMetadata, request_) == (code, message)
