"""TensorFlow Serving's REST API: the request to each path, the connections, and the values in its reply."""

import base64
import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import numpy as np
import orjson

from serving.client.connection import Class, Limits, RetryableError, SignatureChangedError, Tls
from serving.client.inputs import Examples
from serving.errors import Code, ServingError
from serving.wire.requests import ModelSpec, Prediction, State, VersionStatus, path_of
from serving.wire.signatures import DEFAULT_SIGNATURE, DTYPES, Signature, TensorInfo

_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=60)  # seconds
_JSON = {"content-type": "application/json"}
_LONGEST_RETRY_AFTER = 3600.0  # seconds; a call that should wait longer fails at once
_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    412: Code.FAILED_PRECONDITION,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_to_bytes = np.frompyfunc(lambda value: value if isinstance(value, bytes) else str(value).encode(), 1, 1)


class RestCalls:
    """Calls as JSON over HTTP/1.1, on connections that are kept. Tensors travel in column form, bytes in base64."""

    needs_signatures = True  # JSON says neither dtypes nor the names of single outputs

    def __init__(self, url: str, tls: Tls, token: str | None, is_async: bool) -> None:
        headers = {"accept-encoding": "identity"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        verify = tls.context() if url.startswith("https:") else True
        library = httpx.AsyncClient if is_async else httpx.Client
        self._client = library(base_url=url, headers=headers, verify=verify, limits=_KEPT)

    async def predict(
        self,
        spec: ModelSpec,
        inputs: Mapping[str, np.ndarray],
        output_names: Sequence[str],
        signature: Signature | None,
        limits: Limits,
    ) -> Prediction:
        """Runs a signature on tensors. All outputs travel; those that were not asked for are dropped here."""
        assert signature is not None
        body = _write_tensors(spec.signature_name or DEFAULT_SIGNATURE, inputs)
        document = await self._send(f"{path_of(spec)}:predict", limits, body)
        try:
            arrays = _read_outputs(document["outputs"], signature.outputs)
        except (TypeError, ValueError, OverflowError) as error:
            raise SignatureChangedError(spec.name) from error
        return Prediction(spec, {name: arrays[name] for name in output_names or arrays})

    async def classify(self, spec: ModelSpec, examples: Examples, limits: Limits) -> list[list[Class]]:
        """Runs a classify signature on tf.Examples."""
        document = await self._send(f"{path_of(spec)}:classify", limits, _write_examples(spec, examples))
        return [[Class(*each) for each in row] for row in document["results"]]

    async def regress(self, spec: ModelSpec, examples: Examples, limits: Limits) -> np.ndarray:
        """Runs a regress signature on tf.Examples."""
        document = await self._send(f"{path_of(spec)}:regress", limits, _write_examples(spec, examples))
        return np.array(document["results"], np.float32)

    async def metadata(self, spec: ModelSpec, limits: Limits) -> dict[str, Signature]:
        """The signatures of a model."""
        document = await self._send(f"{path_of(spec)}/metadata", limits)
        return {
            name: Signature(name, each.get("method_name", ""), _read_info(each, "inputs"), _read_info(each, "outputs"))
            for name, each in document["metadata"]["signature_def"]["signature_def"].items()
        }

    async def status(self, spec: ModelSpec, limits: Limits) -> list[VersionStatus]:
        """The versions of a model."""
        document = await self._send(path_of(spec), limits)
        return [
            VersionStatus(
                int(each["version"]),
                State[each["state"]],
                Code[each["status"]["error_code"]],
                each["status"].get("error_message", ""),
            )
            for each in document["model_version_status"]
        ]

    async def close(self) -> None:
        """Closes the connections."""
        if isinstance(self._client, httpx.AsyncClient):
            await self._client.aclose()
        else:
            self._client.close()

    async def _send(self, path: str, limits: Limits, body: bytes | None = None) -> Any:
        """The JSON of the reply to a POST of a body, or to a GET without one."""
        return _read_json(await limits.retry(functools.partial(self._attempt, path, body)))

    async def _attempt(self, path: str, body: bytes | None, timeout: float | None) -> bytes:
        method, headers = ("GET", None) if body is None else ("POST", _JSON)
        request = self._client.build_request(method, path, content=body, headers=headers, timeout=timeout)
        try:
            if isinstance(self._client, httpx.AsyncClient):
                reply = await self._client.send(request)
            else:
                reply = self._client.send(request)
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _failure(error) from error
        if reply.status_code != 200:
            raise _refusal(reply)
        return reply.content


def _failure(error: Exception) -> ServingError:
    if isinstance(error, httpx.TimeoutException):
        return ServingError(Code.DEADLINE_EXCEEDED, "the server did not answer in time")
    text = str(error) or type(error).__name__
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ProxyError):
        return RetryableError(Code.UNAVAILABLE, text)
    return ServingError(Code.INTERNAL, text)


def _refusal(reply: httpx.Response) -> ServingError:
    code = _CODES.get(reply.status_code, Code.UNKNOWN)
    try:
        text = str(orjson.loads(reply.content)["error"])
    except (ValueError, KeyError, TypeError):  # a proxy's page
        text = f"HTTP {reply.status_code} {reply.reason_phrase}"
    seconds = _retry_after(reply)
    if code is Code.UNAVAILABLE or (reply.status_code == 429 and seconds is not None):
        return RetryableError(code, text, seconds or 0.0)
    return ServingError(code, text)


def _retry_after(reply: httpx.Response) -> float | None:
    """The seconds that Retry-After asks for, as a number or until a date (RFC 9110, 10.2.3)."""
    text = reply.headers.get("retry-after", "")
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds <= _LONGEST_RETRY_AFTER else math.inf


def _write_tensors(signature_name: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    tensors = {name: _to_json(name, array) for name, array in inputs.items()}
    document = {"signature_name": signature_name, "inputs": tensors}
    if all(array.dtype.kind not in "fV" or np.isfinite(array).all() for array in inputs.values()):
        return orjson.dumps(document, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=_plain).encode()  # orjson writes null for NaN


def _to_json(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "OSU":
        return np.asarray(_to_bytes(array))
    if array.dtype.kind == "c":
        raise ValueError(f"input {name}: JSON has no complex numbers; ask over gRPC")
    return np.asarray(array, order="C")


def _write_examples(spec: ModelSpec, examples: Examples) -> bytes:
    document: dict[str, object] = {"examples": examples.features}
    if spec.signature_name:
        document["signature_name"] = spec.signature_name
    if examples.context is not None:
        document["context"] = examples.context
    return json.dumps(document, default=_plain).encode()


def _plain(value: bytes | np.ndarray) -> object:
    """The JSON of bytes, and of arrays that orjson does not write."""
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value.tolist()


def _read_json(text: bytes) -> Any:
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
        raise ValueError("the names of the outputs differ")
    return {
        name: np.array(_read_strings(named[name]) if info.dtype == "string" else named[name], DTYPES[info.dtype].numpy)
        for name, info in outputs.items()
    }


def _read_strings(value: Any) -> Any:
    if isinstance(value, list):
        return [_read_strings(each) for each in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else str(value).encode()


def _read_info(definition: Mapping[str, Any], side: str) -> dict[str, TensorInfo]:
    tensors = {}
    for key, info in definition.get(side, {}).items():
        described = info.get("tensor_shape", {})
        sizes = [int(dim.get("size", 0)) for dim in described.get("dim", ())]
        shape = None if described.get("unknown_rank") else tuple(None if size < 0 else size for size in sizes)
        tensors[key] = TensorInfo(info.get("name", ""), info["dtype"].removeprefix("DT_").lower(), shape)
    return tensors
