"""TensorFlow Serving's gRPC calls: a method with its message, and what the reply says."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.client.features import Features
from serving.client.messages import (
    ClassificationRequest,
    ClassificationResponse,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    PredictResponse,
    RegressionRequest,
    RegressionResponse,
    SignatureDefMap,
)
from serving.client.predict_bytes import write_predict, write_spec
from serving.client.wire import Call, Class, Examples
from serving.errors import Code
from serving.wire.requests import ModelSpec, Prediction
from serving.wire.signatures import Signature, TensorInfo
from serving.wire.tensor_fields import TYPE_WORDS, read_tensor
from serving.wire.version_status import State, VersionStatus

_SIGNATURE_DEF = "signature_def"


class Method(NamedTuple):
    """A method by its path, and the class of its replies."""

    path: str
    reply: Any


class GrpcRequest(NamedTuple):
    """A message for a method, as it is sent."""

    method: Method
    message: bytes


_PREDICT = Method("/tensorflow.serving.PredictionService/Predict", PredictResponse)
_CLASSIFY = Method("/tensorflow.serving.PredictionService/Classify", ClassificationResponse)
_REGRESS = Method("/tensorflow.serving.PredictionService/Regress", RegressionResponse)
_METADATA = Method("/tensorflow.serving.PredictionService/GetModelMetadata", GetModelMetadataResponse)
_STATUS = Method("/tensorflow.serving.ModelService/GetModelStatus", GetModelStatusResponse)


class GrpcWire:
    """Calls as messages; tensors travel as tensor_content and say themselves what they are."""

    needs_signatures = False

    def predict(
        self,
        spec: ModelSpec,
        inputs: Mapping[str, np.ndarray],
        output_names: Sequence[str],
        signature: Signature | None,
    ) -> Call[Prediction]:
        """Runs a signature on tensors. Raises ValueError where no tensor holds an array's type."""
        return Call(GrpcRequest(_PREDICT, write_predict(spec, inputs, output_names)), _read_prediction)

    def classify(self, spec: ModelSpec, examples: Examples) -> Call[list[list[Class]]]:
        """Runs a classify signature on tf.Examples."""
        message = ClassificationRequest()
        write_spec(spec, message.model_spec)
        _write_examples(examples, message.input)
        return Call(GrpcRequest(_CLASSIFY, message.SerializeToString()), _read_classes)

    def regress(self, spec: ModelSpec, examples: Examples) -> Call[np.ndarray]:
        """Runs a regress signature on tf.Examples."""
        message = RegressionRequest()
        write_spec(spec, message.model_spec)
        _write_examples(examples, message.input)
        return Call(GrpcRequest(_REGRESS, message.SerializeToString()), _read_values)

    def metadata(self, spec: ModelSpec) -> Call[dict[str, Signature]]:
        """Asks for the signatures of a model."""
        message = GetModelMetadataRequest(metadata_field=[_SIGNATURE_DEF])
        write_spec(spec, message.model_spec)
        return Call(GrpcRequest(_METADATA, message.SerializeToString()), _read_signatures)

    def status(self, spec: ModelSpec) -> Call[list[VersionStatus]]:
        """Asks for the versions of a model."""
        message = GetModelStatusRequest()
        write_spec(spec, message.model_spec)
        return Call(GrpcRequest(_STATUS, message.SerializeToString()), _read_statuses)


def _write_examples(examples: Examples, message: Any) -> None:
    if examples.context is None:
        listed = message.example_list
    else:
        listed = message.example_list_with_context
        _write_features(examples.context, listed.context)
    for features in examples.features:
        _write_features(features, listed.examples.add())


def _write_features(features: Features, example: Any) -> None:
    for name, feature in features.items():
        getattr(example.features.feature[name], f"{feature.kind}_list").value.extend(feature.values)


def _read_prediction(reply: Any) -> Prediction:
    spec = reply.model_spec
    answered = ModelSpec(spec.name, spec.version.value, signature_name=spec.signature_name)
    return Prediction(answered, {name: read_tensor(proto) for name, proto in reply.outputs.items()})


def _read_classes(reply: Any) -> list[list[Class]]:
    return [[Class(each.label, each.score) for each in row.classes] for row in reply.result.classifications]


def _read_values(reply: Any) -> np.ndarray:
    return np.array([each.value for each in reply.result.regressions], np.float32)


def _read_signatures(reply: Any) -> dict[str, Signature]:
    packed = SignatureDefMap()
    reply.metadata[_SIGNATURE_DEF].Unpack(packed)
    return {name: _read_signature(name, definition) for name, definition in packed.signature_def.items()}


def _read_signature(name: str, definition: Any) -> Signature:
    inputs, outputs = (
        {key: _read_info(info) for key, info in m.items()} for m in (definition.inputs, definition.outputs)
    )
    return Signature(name, definition.method_name, inputs, outputs)


def _read_info(info: Any) -> TensorInfo:
    dims = [None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
    shape = None if info.tensor_shape.unknown_rank else tuple(dims)
    return TensorInfo(info.name, TYPE_WORDS.get(info.dtype, f"type {info.dtype}"), shape)


def _read_statuses(reply: Any) -> list[VersionStatus]:
    return [
        VersionStatus(each.version, State(each.state), Code(each.status.error_code), each.status.error_message)
        for each in reply.model_version_status
    ]
