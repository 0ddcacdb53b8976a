"""TensorFlow Serving's protobuf messages <-> requests and answers."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from google.protobuf.message import Message
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.errors import invalid_argument
from serving.wire.images import IMAGE_FEATURE
from serving.wire.json_examples import with_context
from serving.wire.requests import (
    LARGEST_EXPANSION,
    Classification,
    ModelSpec,
    Prediction,
    PredictRequest,
    Regression,
    Task,
    VersionStatus,
)
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, check_names, check_tensors, dtype_name, explaining
from serving.wire.tensor_proto import Values, read_values, write_tensor

_SIGNATURE_DEF = "signature_def"  # the one kind of metadata there is


# Requests


def decode_spec(message: Message) -> ModelSpec:
    """Returns the model that a request message names."""
    if not message.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return _decode_spec(message.model_spec)  # type: ignore[attr-defined]  # of every request


def decode_predict(
    message: predict_pb2.PredictRequest, signatures: Mapping[str, Signature], signature_name: str
) -> PredictRequest:
    """Returns the arrays in a message for the signature of this name. Raises ServingError where they do not fit it.

    Without such a signature there are none.
    """
    signature = signatures.get(signature_name or DEFAULT_SIGNATURE)
    inputs = {} if signature is None else _decode_inputs(message.inputs, signature)
    return PredictRequest(signature_name, inputs, list(message.output_filter))


def decode_examples(message: input_pb2.Input) -> np.ndarray:
    """Returns the serialized examples of an Input, each behind the context."""
    kind = message.WhichOneof("kind")
    listed = getattr(message, kind).examples if kind else ()
    context = message.example_list_with_context.context if kind == "example_list_with_context" else None
    prefix = b"" if context is None else context.SerializeToString()
    return with_context(prefix, [example.SerializeToString() for example in listed])


def encode_image_example(image: bytes, feature: str = IMAGE_FEATURE) -> bytes:
    """Returns a serialized tf.Example with an encoded image."""
    example = Example()
    example.features.feature[feature].bytes_list.value.append(image)
    return bytes(example.SerializeToString())


def decode_tasks(message: inference_pb2.MultiInferenceRequest) -> list[Task]:
    """Returns the tasks of a request."""
    return [Task(_decode_spec(task.model_spec), task.method_name) for task in message.tasks]


def check_metadata_fields(fields: Sequence[str]) -> None:
    """Raises ServingError unless the metadata that a client asks for is the one kind there is."""
    if not fields:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != _SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {field} is not supported")


def encode_predict_request(spec: ModelSpec, request: PredictRequest) -> predict_pb2.PredictRequest:
    """Returns the message that a client of gRPC would have sent, with its values as tensor_content."""
    message = predict_pb2.PredictRequest(output_filter=request.output_names)
    _encode_spec(spec._replace(signature_name=request.signature_name), message.model_spec)
    for name, array in request.inputs.items():
        write_tensor(array, message.inputs[name], as_content=True)
    return message


def fill_examples_request(
    message: classification_pb2.ClassificationRequest | regression_pb2.RegressionRequest,
    spec: ModelSpec,
    serialized: Iterable[bytes],
) -> None:
    """Puts serialized tf.Examples into an empty request."""
    _encode_spec(spec, message.model_spec)
    message.input.example_list.SetInParent()
    message.input.example_list.examples.extend(map(Example.FromString, serialized))


def _decode_spec(spec: model_pb2.ModelSpec) -> ModelSpec:
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        name=spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
        signature_name=spec.signature_name,
    )


def _decode_inputs(inputs: Mapping[str, TensorProto], signature: Signature) -> dict[str, np.ndarray]:
    # As in predict_util.cc: what the signature has no input for is refused before any tensor is read. And none is
    # filled up that the model will not take.
    with explaining(signature):
        check_names(signature, set(inputs))
    values = {alias: _read_values(alias, inputs[alias]) for alias in sorted(inputs)}
    with explaining(signature):
        check_tensors(signature, {alias: (dtype_name(each.given), each.shape) for alias, each in values.items()})
    missing = sum(each.missing_size for each in values.values())
    if missing > LARGEST_EXPANSION:
        given = ", ".join(f"{alias}: {len(each.given)} values of shape {each.shape}" for alias, each in values.items())
        raise invalid_argument(
            f"tensor parsing error: the values that are missing take {missing} bytes, and may take "
            f"{LARGEST_EXPANSION}. {given}"
        )
    return {alias: each.filled() for alias, each in values.items()}


def _read_values(alias: str, proto: TensorProto) -> Values:
    try:
        return read_values(proto)
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


# Answers


def encode_predict(prediction: Prediction, as_content: bool) -> predict_pb2.PredictResponse:
    """Returns the message of a prediction, with its values in typed fields or as tensor_content."""
    response = predict_pb2.PredictResponse()
    _encode_spec(prediction.spec, response.model_spec)
    for name, array in prediction.outputs.items():
        write_tensor(array, response.outputs[name], as_content)
    return response


def encode_answer(
    answer: Classification | Regression,
) -> classification_pb2.ClassificationResponse | regression_pb2.RegressionResponse:
    """Returns the message of a classification or of a regression."""
    if isinstance(answer, Classification):
        classified = classification_pb2.ClassificationResponse()
        _encode_spec(answer.spec, classified.model_spec)
        _encode_classification(answer, classified.result)
        return classified
    regressed = regression_pb2.RegressionResponse()
    _encode_spec(answer.spec, regressed.model_spec)
    _encode_regression(answer, regressed.result)
    return regressed


def encode_multi_inference(answers: Sequence[Classification | Regression]) -> inference_pb2.MultiInferenceResponse:
    """Returns the message of the answers to several tasks."""
    response = inference_pb2.MultiInferenceResponse()
    for answer in answers:
        result = response.results.add()
        _encode_spec(answer.spec, result.model_spec)
        if isinstance(answer, Classification):
            _encode_classification(answer, result.classification_result)
        else:
            _encode_regression(answer, result.regression_result)
    return response


def encode_metadata(
    name: str, version: int, signatures: Mapping[str, Signature]
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Returns the message of a model's signatures."""
    response, packed = get_model_metadata_pb2.GetModelMetadataResponse(), get_model_metadata_pb2.SignatureDefMap()
    response.model_spec.name = name
    response.model_spec.version.value = version
    for each in signatures.values():
        packed.signature_def[each.name].CopyFrom(each.definition)
    response.metadata[_SIGNATURE_DEF].Pack(packed)
    return response


def encode_statuses(statuses: Sequence[VersionStatus]) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the message of the versions of a model."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for each in statuses:
        message = response.model_version_status.add(version=each.version, state=each.state)
        message.status.error_code = each.code
        message.status.error_message = each.message
    return response


def encode_reload(increases: Mapping[str, int]) -> model_management_pb2.ReloadConfigResponse:
    """Returns the message of a successful reload, with the increase of counters in the meantime.

    The status of a reload that failed is that of the call.
    """
    response = model_management_pb2.ReloadConfigResponse()
    response.status.SetInParent()
    for name, increase in increases.items():
        response.metric.add(name=name, int64_value_increase=increase)
    return response


def _encode_spec(spec: ModelSpec, message: model_pb2.ModelSpec) -> None:
    message.name = spec.name
    message.signature_name = spec.signature_name
    if spec.version is not None:
        message.version.value = spec.version
    elif spec.label is not None:
        message.version_label = spec.label


def _encode_classification(classification: Classification, result: classification_pb2.ClassificationResult) -> None:
    result.SetInParent()
    for row in classification.rows():
        classes = result.classifications.add().classes
        for label, score in row:
            # A label is a `string` in the message, so bytes that are not UTF-8 cannot travel unchanged.
            classes.add(label=label.decode("utf-8", "replace"), score=score)


def _encode_regression(regression: Regression, result: regression_pb2.RegressionResult) -> None:
    result.SetInParent()
    for value in regression.values.tolist():
        result.regressions.add(value=value)
