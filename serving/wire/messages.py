"""TensorFlow Serving's protobuf messages <-> what the service understands."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.errors import invalid_argument
from serving.wire import tensors
from serving.wire.binding import check_names, check_tensors
from serving.wire.expansion import LARGEST_EXPANSION, with_context
from serving.wire.hints import knowing
from serving.wire.requests import Classification, Metadata, ModelSpec, Prediction, PredictRequest, Regression, Task
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, type_word
from serving.wire.tensor_fields import Values, read_values
from serving.wire.version_status import VersionStatus

_SIGNATURE_DEF = "signature_def"  # the one kind of metadata there is


def decode_spec(message: Any) -> ModelSpec:
    """The model that a request message names."""
    if not message.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return _decode_spec(message.model_spec)


def _decode_spec(spec: Any) -> ModelSpec:
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        name=spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
        signature_name=spec.signature_name,
    )


def decode_predict(message: Any, signatures: Mapping[str, Signature], signature_name: str) -> PredictRequest:
    """The arrays in a PredictRequest, for the signature of this name. Raises ServingError where they do not fit it.

    Without such a signature there are none.
    """
    signature = signatures.get(signature_name or DEFAULT_SIGNATURE)
    inputs = {} if signature is None else _decode_inputs(message.inputs, signature)
    return PredictRequest(signature_name, inputs, list(message.output_filter))


def encode_predict(prediction: Prediction, as_content: bool = False) -> Any:
    """The PredictResponse of a prediction, with its values in typed fields or as tensor_content."""
    response = predict_pb2.PredictResponse()
    _encode_spec(prediction.spec, response.model_spec)
    for name, array in prediction.outputs.items():
        response.outputs[name].CopyFrom(tensors.to_proto(array, as_content))
    return response


def decode_examples(message: Any) -> np.ndarray:
    """The serialized examples of an Input, each behind the context."""
    kind = message.WhichOneof("kind")
    listed = getattr(message, kind).examples if kind else ()
    context = message.example_list_with_context.context if kind == "example_list_with_context" else None
    prefix = b"" if context is None else context.SerializeToString()
    return with_context(prefix, [example.SerializeToString() for example in listed])


def encode_classify(classification: Classification) -> Any:
    """The ClassificationResponse of a classification."""
    response = classification_pb2.ClassificationResponse()
    _encode_spec(classification.spec, response.model_spec)
    _encode_classification(classification, response.result)
    return response


def encode_regress(regression: Regression) -> Any:
    """The RegressionResponse of a regression."""
    response = regression_pb2.RegressionResponse()
    _encode_spec(regression.spec, response.model_spec)
    _encode_regression(regression, response.result)
    return response


def decode_tasks(message: Any) -> list[Task]:
    """The tasks of a MultiInferenceRequest."""
    return [Task(_decode_spec(task.model_spec), task.method_name) for task in message.tasks]


def encode_multi_inference(answers: Sequence[Classification | Regression]) -> Any:
    """The MultiInferenceResponse of the answers to its tasks."""
    response = inference_pb2.MultiInferenceResponse()
    for answer in answers:
        result = response.results.add()
        _encode_spec(answer.spec, result.model_spec)
        if isinstance(answer, Classification):
            _encode_classification(answer, result.classification_result)
        else:
            _encode_regression(answer, result.regression_result)
    return response


def check_metadata_fields(fields: Sequence[str]) -> None:
    """Raises ServingError where metadata is asked for that there is not."""
    if not fields:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != _SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {field} is not supported")


def encode_metadata(metadata: Metadata) -> Any:
    """The GetModelMetadataResponse of a model's signatures."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = metadata.spec.name
    response.model_spec.version.value = metadata.spec.version
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in metadata.definitions.items():
        signatures.signature_def[name].CopyFrom(definition)
    response.metadata[_SIGNATURE_DEF].Pack(signatures)
    return response


def encode_statuses(statuses: Sequence[VersionStatus]) -> Any:
    """The GetModelStatusResponse of the versions of a model."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for each in statuses:
        message = response.model_version_status.add(version=each.version, state=each.state)
        message.status.error_code = each.code
        message.status.error_message = each.message
    return response


def encode_reload(increases: Mapping[str, int]) -> Any:
    """The ReloadConfigResponse of a reload that was followed, with what counters have counted meanwhile.

    The status of a reload that failed is that of the call.
    """
    response = model_management_pb2.ReloadConfigResponse()
    response.status.SetInParent()
    for name, increase in increases.items():
        response.metric.add(name=name, int64_value_increase=increase)
    return response


def _decode_inputs(inputs: Mapping[str, Any], signature: Signature) -> dict[str, np.ndarray]:
    # As in predict_util.cc: what the signature has no input for is refused before any tensor is read. And none is
    # filled up that the model will not take.
    with knowing(signature):
        check_names(signature, set(inputs))
    values = {alias: _read_values(alias, inputs[alias]) for alias in sorted(inputs)}
    with knowing(signature):
        check_tensors(signature, {alias: (type_word(each.given), each.shape) for alias, each in values.items()})
    missing = sum(each.missing_size for each in values.values())
    if missing > LARGEST_EXPANSION:
        given = ", ".join(f"{alias}: {len(each.given)} values of shape {each.shape}" for alias, each in values.items())
        raise invalid_argument(
            f"tensor parsing error: the values that are missing take {missing} bytes, and may take "
            f"{LARGEST_EXPANSION}. {given}"
        )
    return {alias: each.filled() for alias, each in values.items()}


def _read_values(alias: str, proto: Any) -> Values:
    try:
        return read_values(proto)
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _encode_classification(classification: Classification, result: Any) -> None:
    result.SetInParent()
    for row in classification.rows():
        classes = result.classifications.add().classes
        for label, score in row:
            # A label is a `string` in the message, so bytes that are not UTF-8 cannot travel as they are.
            classes.add(label=label.decode("utf-8", "replace"), score=score)


def _encode_regression(regression: Regression, result: Any) -> None:
    result.SetInParent()
    for value in regression.values.tolist():
        result.regressions.add(value=value)


def _encode_spec(spec: ModelSpec, message: Any) -> None:
    message.name = spec.name
    message.signature_name = spec.signature_name
    message.version.value = spec.version
