"""The requests that both servers get: made from the signatures of a model, and wrong ones. The numbers are random."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.wire.images import IMAGE_FEATURE
from serving.wire.json_tensors import is_json_type
from serving.wire.signatures import DTYPES, Signature, TensorInfo
from serving.wire.tensor_proto import write_tensor

_IMAGE_SIZE = 32  # of the free axes of an image
_BATCH_SIZES = (1, 3)
_LARGEST_RANK_CHANGED = 2  # a kernel may end the process that gets another rank than that of an image
_REPLIES: Mapping[str, type[Message]] = {
    "PredictionService/Predict": predict_pb2.PredictResponse,
    "PredictionService/Classify": classification_pb2.ClassificationResponse,
    "PredictionService/Regress": regression_pb2.RegressionResponse,
    "PredictionService/MultiInference": inference_pb2.MultiInferenceResponse,
    "PredictionService/GetModelMetadata": get_model_metadata_pb2.GetModelMetadataResponse,
    "ModelService/GetModelStatus": get_model_status_pb2.GetModelStatusResponse,
}
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class GrpcCase:
    """A call of a method, as `PredictionService/Predict`."""

    name: str
    method: str
    request: Message

    @property
    def reply(self) -> type[Message]:
        """The class of the answer."""
        return _REPLIES[self.method]


@dataclass(frozen=True)
class RestCase:
    """A request to a path, POST if it has a body."""

    name: str
    path: str
    body: bytes | None = None


Case = GrpcCase | RestCase


def cases(model: str, signatures: Mapping[str, Signature]) -> Iterator[Case]:
    """The requests to a model with these signatures, right and wrong."""
    yield GrpcCase(
        "status", "ModelService/GetModelStatus", _with_spec(get_model_status_pb2.GetModelStatusRequest, model)
    )
    yield _metadata(model, "signature_def")
    yield _metadata(model, "no_such_field")
    path = _path(model)
    yield RestCase("status", path)
    yield RestCase("metadata", f"{path}/metadata")
    for signature in signatures.values():
        yield from _of_signature(model, signature)
    yield from _wrong_specs(model)
    yield from _wrong_bodies(path)


def recorded(model: str, logs: Iterable[PredictionLog]) -> Iterator[GrpcCase]:
    """The requests of warm-up records, as an export carries in assets.extra, to a model of this name."""
    for number, log in enumerate(logs, start=1):
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        for spec in [task.model_spec for task in getattr(request, "tasks", ())] or [request.model_spec]:
            spec.name = model
        method = "".join(word.capitalize() for word in kind.removesuffix("_log").split("_"))
        yield GrpcCase(f"record {number}", f"PredictionService/{method}", request)


def _of_signature(model: str, signature: Signature) -> Iterator[Case]:
    name, rng = signature.name, np.random.default_rng(0)
    for size in _BATCH_SIZES:
        arrays = {alias: _array(info, size, rng) for alias, info in sorted(signature.inputs.items())}
        yield _predict(f"{name}, batch of {size}", model, name, arrays)
        yield _predict(f"{name}, batch of {size}, in typed fields", model, name, arrays, as_content=False)
        yield from _predict_by_rest(f"{name}, batch of {size}", model, signature, arrays)
    for output in sorted(signature.outputs):
        yield _predict(f"{name}, output {output} alone", model, name, arrays, outputs=[output])
        yield _predict(f"{name}, output {output} twice", model, name, arrays, outputs=[output, output])
    yield _predict(f"{name}, an output that is none", model, name, arrays, outputs=["no_such_output"])
    yield _predict(f"{name}, no input", model, name, {})
    yield _predict(f"{name}, an input too many", model, name, {**arrays, "no_such_input": np.zeros(1, np.float32)})
    first = next(iter(arrays), None)
    if first is not None:
        yield from _wrong_inputs(model, signature, arrays, first)
    yield from _of_examples(model, name)


def _wrong_inputs(model: str, signature: Signature, arrays: Arrays, first: str) -> Iterator[Case]:
    name, info = signature.name, signature.inputs[first]
    others = {alias: array for alias, array in arrays.items() if alias != first}
    yield _predict(f"{name}, an input of another name", model, name, {**others, "no_such_input": arrays[first]})
    other_type = np.zeros(1, bool) if info.dtype != "bool" else np.zeros(1, np.float32)
    yield _predict(f"{name}, an input of another dtype", model, name, {**others, first: other_type})
    if info.shape is not None and len(info.shape) <= _LARGEST_RANK_CHANGED:
        deeper = {**arrays, first: arrays[first][None]}
        yield _predict(f"{name}, an input of another rank", model, name, deeper)
        yield from _predict_by_rest(f"{name}, an input of another rank", model, signature, deeper)
    torn = _predict(f"{name}, a torn tensor", model, name, arrays)
    tensor = torn.request.inputs[first]  # type: ignore[attr-defined]
    tensor.tensor_content = tensor.tensor_content[:-1] or b"\1"
    yield torn


def _of_examples(model: str, signature: str) -> Iterator[Case]:
    examples = input_pb2.Input()
    examples.example_list.examples.extend([_example(), _example()])
    path = _path(model)
    document = {"signature_name": signature, "examples": [{"x": 0.5, IMAGE_FEATURE: _base64(_image())}]}
    for given, what in ((examples, "tf.Examples"), (input_pb2.Input(), "no tf.Example")):
        for method, kind in (
            ("Classify", classification_pb2.ClassificationRequest),
            ("Regress", regression_pb2.RegressionRequest),
        ):
            request = _with_spec(kind, model, signature)
            request.input.CopyFrom(given)
            yield GrpcCase(f"{signature}, {what}", f"PredictionService/{method}", request)
    for method in ("classify", "regress"):
        yield RestCase(f"{signature}, tf.Examples", f"{path}:{method}", json.dumps(document).encode())
        yield RestCase(f"{signature}, no tf.Example", f"{path}:{method}", b'{"examples": []}')
    task = inference_pb2.InferenceTask(method_name="tensorflow/serving/classify")
    task.model_spec.CopyFrom(ModelSpec(name=model, signature_name=signature))
    request = inference_pb2.MultiInferenceRequest(tasks=[task], input=examples)
    yield GrpcCase(f"{signature}, one task", "PredictionService/MultiInference", request)
    request = inference_pb2.MultiInferenceRequest(tasks=[task, task], input=examples)
    yield GrpcCase(f"{signature}, a task twice", "PredictionService/MultiInference", request)


def _wrong_specs(model: str) -> Iterator[Case]:
    body = b'{"instances": [1]}'
    for what, spec in (
        ("no model", ModelSpec()),
        ("a model that is none", ModelSpec(name="no_such_model")),
        ("a signature that is none", ModelSpec(name=model, signature_name="no_such_signature")),
        ("a version that is none", _versioned(model, 10**9)),
        ("a negative version", _versioned(model, -1)),
        ("a label that is none", ModelSpec(name=model, version_label="no_such_label")),
    ):
        for method, kind in (
            ("PredictionService/Predict", predict_pb2.PredictRequest),
            ("PredictionService/Classify", classification_pb2.ClassificationRequest),
            ("PredictionService/GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest),
            ("ModelService/GetModelStatus", get_model_status_pb2.GetModelStatusRequest),
        ):
            yield GrpcCase(what, method, kind(model_spec=spec))
    for path in (
        _path("no_such_model"),
        f"{_path(model)}/versions/{10**9}",
        f"{_path(model)}/versions/{10**20}",
        f"{_path(model)}/versions/one",
        f"{_path(model)}/labels/no_such_label",
    ):
        yield RestCase("what is not there", path)
        yield RestCase("what is not there", f"{path}/metadata")
        yield RestCase("what is not there", f"{path}:predict", body)


def _wrong_bodies(path: str) -> Iterator[Case]:
    for body in (
        *(b"", b"{", b"[]", b"{}", b"\xff", b'{"instances": []}', b'{"instances": 1}', b'{"inputs": {}}'),
        *(b'{"instances": [1], "inputs": [1]}', b'{"instances": [{"no_such_input": 1}]}', b'{"instances": [null]}'),
        *(b'{"signature_name": 1, "instances": [1]}', b'{"signature_name": "no_such_signature", "instances": [1]}'),
        *(b'{"instances": [[1], [1, 2]]}', b'{"instances": [{"b64": "!"}]}', b'{"instances": [1e999]}'),
    ):
        yield RestCase(f"body {body!r}", f"{path}:predict", body)
    yield RestCase("a method that is none", f"{path}:explode", b"{}")
    yield RestCase("GET of a method", f"{path}:predict")
    yield RestCase("POST of a status", path, b"{}")
    yield RestCase("a path that is none", "/v1/no/such/path")


def _predict(
    name: str, model: str, signature: str, arrays: Arrays, *, outputs: Any = (), as_content: bool = True
) -> GrpcCase:
    request = _with_spec(predict_pb2.PredictRequest, model, signature)
    request.output_filter.extend(outputs)
    for alias, array in arrays.items():
        write_tensor(array, request.inputs[alias], as_content=as_content)
    return GrpcCase(name, "PredictionService/Predict", request)


def _predict_by_rest(name: str, model: str, signature: Signature, arrays: Arrays) -> Iterator[RestCase]:
    if not all(is_json_type(info.dtype) for info in signature.inputs.values()):
        return
    columns = {alias: _as_json(array) for alias, array in arrays.items()}
    head = {"signature_name": signature.name}
    path = f"{_path(model)}:predict"
    yield RestCase(f"{name}, by column", path, json.dumps({**head, "inputs": columns}).encode())
    if all(array.ndim for array in arrays.values()):
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)]
        yield RestCase(f"{name}, by row", path, json.dumps({**head, "instances": rows}).encode())


def _metadata(model: str, field: str) -> GrpcCase:
    request = _with_spec(get_model_metadata_pb2.GetModelMetadataRequest, model)
    request.metadata_field.append(field)
    return GrpcCase(f"metadata of {field}", "PredictionService/GetModelMetadata", request)


def _with_spec(kind: Any, model: str, signature: str = "") -> Any:
    return kind(model_spec=ModelSpec(name=model, signature_name=signature))


def _versioned(model: str, version: int) -> ModelSpec:
    spec = ModelSpec(name=model)
    spec.version.value = version
    return spec


def _array(info: TensorInfo, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Random values for an input; strings are the bytes of images, and those of tf.Examples by turns."""
    free = (batch_size, _IMAGE_SIZE, _IMAGE_SIZE, 3)
    declared = (None,) if info.shape is None else info.shape
    shape = [size or free[min(axis, len(free) - 1)] for axis, size in enumerate(declared)]
    if info.dtype == "string":
        strings = np.empty(int(np.prod(shape)), object)
        strings[:] = [_image() if index % 2 == 0 else _example().SerializeToString() for index in range(len(strings))]
        return strings.reshape(shape)
    dtype = DTYPES[info.dtype].numpy
    if dtype.kind in "iub":
        return rng.integers(0, 2 if dtype.kind == "b" else 8, shape).astype(dtype)
    return rng.random(shape, np.float32).astype(dtype)


def _as_json(array: np.ndarray) -> Any:
    if array.dtype.kind == "O":
        return np.frompyfunc(_base64, 1, 1)(array).tolist()
    return array.tolist()


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _image() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (_IMAGE_SIZE, _IMAGE_SIZE, 3), np.uint8)
    encoded: bytes = tf.io.encode_png(pixels).numpy()
    return encoded


def _example() -> Example:
    """A tf.Example with the features that exports of this project, and TensorFlow Serving's samples, parse."""
    example = Example()
    example.features.feature["x"].float_list.value.append(0.5)
    example.features.feature[IMAGE_FEATURE].bytes_list.value.append(_image())
    return example


def _path(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}"
