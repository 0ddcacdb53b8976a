"""TensorFlow Serving's protobuf messages <-> what the service understands."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow_serving.apis import classification_pb2, get_model_status_pb2, predict_pb2

from serving import tensors
from serving.errors import invalid_argument
from serving.request import Classification, ModelSpec, Prediction, PredictRequest
from serving.versions import VersionStatus


def decode_spec(message: Any) -> ModelSpec:
    """The model that a request message names."""
    if not message.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = message.model_spec
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        name=spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
        signature_name=spec.signature_name,
    )


def decode_predict(message: Any) -> PredictRequest:
    """The arrays in a PredictRequest."""
    inputs = _decode_inputs(message.inputs)
    return PredictRequest(message.model_spec.signature_name, inputs, list(message.output_filter))


def encode_predict(prediction: Prediction) -> Any:
    """The PredictResponse of a prediction, with its values in typed fields."""
    response = predict_pb2.PredictResponse()
    _encode_spec(prediction.spec, response.model_spec)
    for name, array in prediction.outputs.items():
        response.outputs[name].CopyFrom(tensors.to_proto(array))
    return response


def decode_examples(message: Any) -> np.ndarray:
    """The serialized examples of an Input; a context goes before each, which parses as the union of both."""
    kind = message.WhichOneof("kind")
    listed = getattr(message, kind).examples if kind else ()
    context = message.example_list_with_context.context if kind == "example_list_with_context" else None
    prefix = b"" if context is None else context.SerializeToString()
    examples = np.empty(len(listed), object)
    examples[:] = [prefix + example.SerializeToString() for example in listed]
    return examples


def encode_classify(classification: Classification) -> Any:
    """The ClassificationResponse of a classification."""
    response = classification_pb2.ClassificationResponse()
    _encode_spec(classification.spec, response.model_spec)
    for row in classification.rows():
        classes = response.result.classifications.add().classes
        for label, score in row:
            # A label is a `string` in the message, so bytes that are not UTF-8 cannot travel as they are.
            classes.add(label=label.decode("utf-8", "replace"), score=score)
    return response


def encode_statuses(statuses: Sequence[VersionStatus]) -> Any:
    """The GetModelStatusResponse of the versions of a model."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for each in statuses:
        message = response.model_version_status.add(version=each.version, state=each.state)
        message.status.error_code = each.code
        message.status.error_message = each.message
    return response


def _decode_inputs(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {}
    for alias in sorted(inputs):
        try:
            arrays[alias] = tensors.from_proto(inputs[alias])
        except ValueError as error:
            raise invalid_argument(f"tensor parsing error: {alias}") from error
    return arrays


def _encode_spec(spec: ModelSpec, message: Any) -> None:
    message.name = spec.name
    message.signature_name = spec.signature_name
    message.version.value = spec.version
