"""TensorFlow Serving's REST calls: a path with its JSON, and what the reply says."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import orjson

from serving.client.features import Features
from serving.client.wire import Call, Class, Examples, SignatureChangedError
from serving.errors import Code, ServingError
from serving.wire.requests import ModelSpec, Prediction
from serving.wire.signatures import DEFAULT_SIGNATURE, NUMPY_TYPES, Signature, TensorInfo
from serving.wire.version_status import State, VersionStatus


class RestRequest(NamedTuple):
    """A POST of a body, or a GET where there is none."""

    path: str
    body: bytes | None = None


class RestWire:
    """Calls as JSON: tensors in column form, bytes in base64."""

    needs_signatures = True

    def predict(
        self,
        spec: ModelSpec,
        inputs: Mapping[str, np.ndarray],
        output_names: Sequence[str],
        signature: Signature | None,
    ) -> Call[Prediction]:
        """Runs a signature on tensors. All outputs travel; those that were not asked for are dropped here."""
        assert signature is not None
        outputs = signature.outputs
        name = orjson.dumps(spec.signature_name or DEFAULT_SIGNATURE)
        body = b'{"signature_name":' + name + b',"inputs":' + _write_tensors(inputs) + b"}"

        def decode(reply: bytes) -> Prediction:
            arrays = _read_outputs(read_json(reply)["outputs"], outputs)
            kept = {name: arrays[name] for name in output_names or arrays}
            return Prediction(spec, kept)

        return Call(RestRequest(f"{_path(spec)}:predict", body), decode)

    def classify(self, spec: ModelSpec, examples: Examples) -> Call[list[list[Class]]]:
        """Runs a classify signature on tf.Examples."""
        request = RestRequest(f"{_path(spec)}:classify", _write_examples(spec, examples))
        return Call(request, lambda reply: [[Class(*each) for each in row] for row in read_json(reply)["results"]])

    def regress(self, spec: ModelSpec, examples: Examples) -> Call[np.ndarray]:
        """Runs a regress signature on tf.Examples."""
        request = RestRequest(f"{_path(spec)}:regress", _write_examples(spec, examples))
        return Call(request, lambda reply: np.array(read_json(reply)["results"], np.float32))

    def metadata(self, spec: ModelSpec) -> Call[dict[str, Signature]]:
        """Asks for the signatures of a model."""
        return Call(RestRequest(f"{_path(spec)}/metadata"), _read_signatures)

    def status(self, spec: ModelSpec) -> Call[list[VersionStatus]]:
        """Asks for the versions of a model."""
        return Call(RestRequest(_path(spec)), _read_statuses)


def _path(spec: ModelSpec) -> str:
    path = f"v1/models/{quote(spec.name, safe='')}"
    if spec.version is not None:
        return f"{path}/versions/{spec.version}"
    return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"


def _write_tensors(inputs: Mapping[str, np.ndarray]) -> bytes:
    document = {name: _json_tensor(name, array) for name, array in inputs.items()}
    if all(array.dtype.kind != "f" or np.isfinite(array).all() for array in inputs.values()):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=np.ndarray.tolist).encode()  # NaN, for which orjson would write null


def _json_tensor(name: str, array: np.ndarray) -> Any:
    if array.dtype.kind in "OSU":
        return _json_strings(array.tolist())
    if array.dtype.kind == "c":
        raise ValueError(f"input {name}: JSON has no complex numbers; ask over gRPC")
    is_native = array.ndim > 0 and array.dtype.kind in "biuf"
    return np.ascontiguousarray(array) if is_native else array.tolist()


def _json_strings(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_strings(each) for each in value]
    data = value if isinstance(value, bytes) else str(value).encode()
    return {"b64": base64.b64encode(data).decode()}


def _write_examples(spec: ModelSpec, examples: Examples) -> bytes:
    document: dict[str, Any] = {"examples": [_json_features(features) for features in examples.features]}
    if spec.signature_name:
        document["signature_name"] = spec.signature_name
    if examples.context is not None:
        document["context"] = _json_features(examples.context)
    return json.dumps(document).encode()


def _json_features(features: Features) -> dict[str, Any]:
    return {
        name: _json_strings(feature.values) if feature.kind == "bytes" else feature.values
        for name, feature in features.items()
    }


def read_json(text: bytes) -> Any:
    """The value of a reply. Raises ServingError where it is no JSON, as pages of proxies are not."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)  # NaN and Infinity
    except ValueError:
        raise ServingError(Code.INTERNAL, f"the reply is no JSON: {text[:200]!r}") from None


def _read_outputs(value: Any, outputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    named = {next(iter(outputs)): value} if len(outputs) == 1 else value
    if not isinstance(named, dict) or named.keys() != outputs.keys():
        raise SignatureChangedError
    return {name: _read_tensor(named[name], info) for name, info in outputs.items()}


def _read_tensor(value: Any, info: TensorInfo) -> np.ndarray:
    try:
        if info.dtype == "string":
            return np.array(_read_strings(value), object)
        return np.array(value, NUMPY_TYPES[info.dtype])
    except (TypeError, ValueError, OverflowError) as error:
        raise SignatureChangedError from error


def _read_strings(value: Any) -> Any:
    if isinstance(value, list):
        return [_read_strings(each) for each in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


def _read_signatures(reply: bytes) -> dict[str, Signature]:
    definitions = read_json(reply)["metadata"]["signature_def"]["signature_def"]
    return {name: _read_signature(name, definition) for name, definition in definitions.items()}


def _read_signature(name: str, definition: Mapping[str, Any]) -> Signature:
    inputs, outputs = (
        {key: _read_info(info) for key, info in definition.get(side, {}).items()} for side in ("inputs", "outputs")
    )
    return Signature(name, definition.get("method_name", ""), inputs, outputs)


def _read_info(info: Mapping[str, Any]) -> TensorInfo:
    described = info.get("tensor_shape", {})
    sizes = [int(dim.get("size", 0)) for dim in described.get("dim", ())]
    shape = None if described.get("unknown_rank") else tuple(None if size < 0 else size for size in sizes)
    return TensorInfo(info.get("name", ""), info["dtype"].removeprefix("DT_").lower(), shape)


def _read_statuses(reply: bytes) -> list[VersionStatus]:
    return [
        VersionStatus(
            int(each["version"]),
            State[each["state"]],
            Code[each["status"]["error_code"]],
            each["status"].get("error_message", ""),
        )
        for each in read_json(reply)["model_version_status"]
    ]
