"""The messages of PredictionService as bodies of HTTP, for the model that the address names."""

from typing import Any

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from serving.errors import invalid_argument
from serving.wire import messages
from serving.wire.requests import ModelSpec

_MESSAGES = {
    "predict": predict_pb2.PredictRequest,
    "classify": classification_pb2.ClassificationRequest,
    "regress": regression_pb2.RegressionRequest,
}


def read_message(action: str, body: bytes) -> Any:
    """The message that a predict, classify or regress request holds. Raises ServingError where there is none."""
    kind = _MESSAGES[action]
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise invalid_argument(f"Expected a serialized {kind.DESCRIPTOR.full_name}") from error


def agree(spec: ModelSpec, message: Any) -> ModelSpec:
    """The model that the address of a request names, with what its message adds. Raises ServingError if they differ."""
    if not message.HasField("model_spec"):
        return spec
    other = messages.decode_spec(message)
    _check("model", spec.name, other.name or spec.name)
    if other.signature_name:
        _check("signature", spec.signature_name or other.signature_name, other.signature_name)
        spec = spec._replace(signature_name=other.signature_name)
    if other.version is None and not other.label:
        return spec
    if spec.version is None and spec.label is None:
        return spec._replace(version=other.version, label=other.label)
    _check("version", spec.version or spec.label, other.version or other.label)
    return spec


def _check(what: str, addressed: object, named: object) -> None:
    if addressed != named:
        raise invalid_argument(f"The address names the {what} {addressed}, and the message {named}.")
