"""What the service understands -> the messages that a client of gRPC would have sent for it."""

from collections.abc import Iterable
from typing import Any

from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import predict_pb2

from serving.wire import tensors
from serving.wire.requests import ModelSpec, PredictRequest


def encode_predict_request(spec: ModelSpec, request: PredictRequest) -> Any:
    """The PredictRequest of arrays, as tensor_content."""
    message = predict_pb2.PredictRequest(output_filter=request.output_names)
    _encode_spec(spec, request.signature_name, message.model_spec)
    for name, array in request.inputs.items():
        message.inputs[name].CopyFrom(tensors.to_proto(array, as_content=True))
    return message


def fill_examples_request(message: Any, spec: ModelSpec, serialized: Iterable[bytes]) -> Any:
    """Fills an empty ClassificationRequest or RegressionRequest with serialized tf.Examples, and returns it."""
    _encode_spec(spec, spec.signature_name, message.model_spec)
    message.input.example_list.SetInParent()
    message.input.example_list.examples.extend(map(example_pb2.Example.FromString, serialized))
    return message


def _encode_spec(spec: ModelSpec, signature_name: str, message: Any) -> None:
    message.name = spec.name
    message.signature_name = signature_name
    if spec.version is not None:
        message.version.value = spec.version
    if spec.label is not None:
        message.version_label = spec.label
