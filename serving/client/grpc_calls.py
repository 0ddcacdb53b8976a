"""TensorFlow Serving's gRPC methods: the request to each, the channel, and the values in its reply."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import grpc
import grpc.aio
import numpy as np
from google.protobuf.message import Message

from serving.client.connection import Class, Limits, RetryableError, Tls
from serving.client.inputs import Examples, Features
from serving.errors import Code, ServingError
from serving.wire.protos import message_class
from serving.wire.requests import ModelSpec, Prediction, State, VersionStatus
from serving.wire.signatures import DTYPE_NAMES, Signature, TensorInfo
from serving.wire.tensor_proto import declared_shape, read_tensor, write_tensor

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # the client's own know the deadline, and messages of any size
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),  # by default a server that was restarted is found after minutes
]
_REPLIES = {
    "PredictionService/Predict": "tensorflow.serving.PredictResponse",
    "PredictionService/Classify": "tensorflow.serving.ClassificationResponse",
    "PredictionService/Regress": "tensorflow.serving.RegressionResponse",
    "PredictionService/GetModelMetadata": "tensorflow.serving.GetModelMetadataResponse",
    "ModelService/GetModelStatus": "tensorflow.serving.GetModelStatusResponse",
}
_Callable: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, Message] | grpc.aio.UnaryUnaryMultiCallable[bytes, Message]"
_PORT = 8500  # TensorFlow Serving's
_SIGNATURE_DEF = "signature_def"
_LARGEST_MESSAGE = 2**31 - 1  # bytes
_FEATURE_FIELDS = {bytes: "bytes_list", int: "int64_list", float: "float_list"}


class GrpcCalls:
    """Calls over a channel, which connects when it is first used and again when it must."""

    needs_signatures = False  # tensors carry their own dtype and shape

    def __init__(self, url: str, tls: Tls, token: str | None, is_async: bool) -> None:
        self._open = channel_opener(url, tls)
        self._metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        # A channel for asyncio belongs to the event loop that runs when it is opened.
        self._channel: grpc.Channel | grpc.aio.Channel | None = None if is_async else self._open(grpc)
        self._callables: dict[str, _Callable] = {}

    async def predict(
        self,
        spec: ModelSpec,
        inputs: Mapping[str, np.ndarray],
        output_names: Sequence[str],
        signature: Signature | None,
        limits: Limits,
    ) -> Prediction:
        """Runs a signature on tensors. Raises ValueError if no tensor holds an array's dtype."""
        reply = await self._send("PredictionService/Predict", predict_request(spec, inputs, output_names), limits)
        answered = reply.model_spec
        return Prediction(
            ModelSpec(answered.name, answered.version.value, signature_name=answered.signature_name),
            {name: read_tensor(proto) for name, proto in reply.outputs.items()},
        )

    async def classify(self, spec: ModelSpec, examples: Examples, limits: Limits) -> list[list[Class]]:
        """Runs a classify signature on tf.Examples."""
        request = _write_examples(examples, _request("ClassificationRequest", spec))
        reply = await self._send("PredictionService/Classify", request, limits)
        return [[Class(each.label, each.score) for each in row.classes] for row in reply.result.classifications]

    async def regress(self, spec: ModelSpec, examples: Examples, limits: Limits) -> np.ndarray:
        """Runs a regress signature on tf.Examples."""
        request = _write_examples(examples, _request("RegressionRequest", spec))
        reply = await self._send("PredictionService/Regress", request, limits)
        return np.array([each.value for each in reply.result.regressions], np.float32)

    async def metadata(self, spec: ModelSpec, limits: Limits) -> dict[str, Signature]:
        """The signatures of a model."""
        request = _request("GetModelMetadataRequest", spec, metadata_field=[_SIGNATURE_DEF]).SerializeToString()
        reply = await self._send("PredictionService/GetModelMetadata", request, limits)
        packed = message_class("tensorflow.serving.SignatureDefMap")()
        reply.metadata[_SIGNATURE_DEF].Unpack(packed)
        return {
            name: Signature(name, each.method_name, _read_info(each.inputs), _read_info(each.outputs))
            for name, each in packed.signature_def.items()
        }

    async def status(self, spec: ModelSpec, limits: Limits) -> list[VersionStatus]:
        """The versions of a model."""
        request = _request("GetModelStatusRequest", spec).SerializeToString()
        reply = await self._send("ModelService/GetModelStatus", request, limits)
        return [
            VersionStatus(each.version, State(each.state), Code(each.status.error_code), each.status.error_message)
            for each in reply.model_version_status
        ]

    async def close(self) -> None:
        """Closes the connections."""
        if isinstance(self._channel, grpc.aio.Channel):
            await self._channel.close()
        elif self._channel is not None:
            self._channel.close()

    async def _send(self, method: str, request: bytes, limits: Limits) -> Any:
        if self._channel is None:
            self._channel = self._open(grpc.aio)
        if method not in self._callables:
            self._callables[method] = self._channel.unary_unary(
                f"/tensorflow.serving.{method}", response_deserializer=message_class(_REPLIES[method]).FromString
            )
        return await limits.retry(functools.partial(self._attempt, self._callables[method], request))

    async def _attempt(self, call: _Callable, request: bytes, timeout: float | None) -> Message:
        try:
            reply = call(request, timeout=timeout, metadata=self._metadata)
            return reply if isinstance(reply, Message) else await reply
        except grpc.RpcError as error:
            code, text = Code[error.code().name], error.details() or ""
            raise (RetryableError if code is Code.UNAVAILABLE else ServingError)(code, text) from error


def channel_opener(url: str, tls: Tls) -> Callable[[ModuleType], Any]:
    """Returns the function that opens a channel to a URL with `grpc` or `grpc.aio`. No message is too large for it.

    Raises OSError if a file of `tls` cannot be read.
    """
    target = _target(url)
    if not url.startswith("grpcs:"):
        return lambda library: library.insecure_channel(target, _OPTIONS)
    credentials = grpc.ssl_channel_credentials(*tls.pem())
    return lambda library: library.secure_channel(target, credentials, _OPTIONS)


def _target(url: str) -> str:
    """The address in gRPC's own form."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix:{parts.path}"
    return parts.netloc if parts.port else f"{parts.netloc}:{_PORT}"


def predict_request(spec: ModelSpec, inputs: Mapping[str, np.ndarray], output_names: Sequence[str]) -> bytes:
    """Serializes a request to run a signature. Raises ValueError if no message holds an array."""
    message = _request("PredictRequest", spec, output_filter=output_names)
    for name, array in inputs.items():
        if array.nbytes > _LARGEST_MESSAGE:
            raise ValueError(f"Input {name} takes {array.nbytes} bytes, and a message {_LARGEST_MESSAGE} at most")
        write_tensor(array, message.inputs[name], as_content=True)
    return message.SerializeToString()


def _request(name: str, spec: ModelSpec, **fields: Sequence[str]) -> Any:
    message = message_class(f"tensorflow.serving.{name}")(**fields)
    message.model_spec.name = spec.name
    message.model_spec.signature_name = spec.signature_name
    if spec.version is not None:
        message.model_spec.version.value = spec.version
    elif spec.label is not None:
        message.model_spec.version_label = spec.label
    return message


def _write_examples(examples: Examples, message: Any) -> bytes:
    if examples.context is None:
        listed = message.input.example_list
    else:
        listed = message.input.example_list_with_context
        _write_features(examples.context, listed.context)
    for features in examples.features:
        _write_features(features, listed.examples.add())
    return message.SerializeToString()


def _write_features(features: Features, example: Any) -> None:
    for name, values in features.items():
        field = _FEATURE_FIELDS[type(values[0]) if values else float]
        getattr(example.features.feature[name], field).value.extend(values)


def _read_info(infos: Any) -> dict[str, TensorInfo]:
    return {
        key: TensorInfo(info.name, DTYPE_NAMES.get(info.dtype, f"type {info.dtype}"), declared_shape(info.tensor_shape))
        for key, info in infos.items()
    }
