"""The client for asyncio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import numpy as np

from serving.client.connection import Class, Limits, Retries, SignatureChangedError, Tls
from serving.client.inputs import Example, Inputs, are_arrays, to_arrays, to_examples
from serving.errors import Code, ServingError, needing
from serving.wire.requests import ModelSpec, Prediction, State, VersionStatus
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature

if TYPE_CHECKING:
    from serving.client.grpc_calls import GrpcCalls
    from serving.client.rest_calls import RestCalls

_LOOK_AGAIN = 0.1  # seconds, while a model is waited for
_LONGEST_LOOK = 5.0  # seconds for one look
_NOT_YET = (Code.UNAVAILABLE, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED)  # the answers of a server that starts


class AsyncClient:
    """`Client` for asyncio: the same arguments, answers and errors, awaited. It belongs to one event loop.

    Example:
        ```python
        async with AsyncClient("http://localhost:8501", "digits") as client:
            answers = await asyncio.gather(*(client.predict(image) for image in images))
        ```
    """

    _is_async = True

    def __init__(
        self,
        url: str,
        model: str = "default",
        *,
        timeout: float | None = 60.0,
        retries: Retries = Retries(),  # noqa: B008
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        self._model = model
        self._timeout = timeout
        self._retries = retries
        self._calls = _open(url, tls or Tls(), token, self._is_async)
        self._signatures: dict[ModelSpec, Signature] = {}

    async def predict(
        self,
        inputs: Inputs,
        *,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Prediction:
        """Runs a signature.

        Args:
            inputs: A value for each input by name, or one value for a signature's only input. Arrays are sent
                unchanged; numbers, strings and lists become arrays of the signature's dtype. Files (`pathlib.Path`),
                bytes and images of Pillow are read as the signature wants them: as encoded bytes, or as pixels in
                0..255 of the image's own size. One of them alone is a batch of one.
            signature: Its name; `serving_default` by default.
            version: The version to call; by default, and without a label, the newest.
            label: The label of the version to call.
            outputs: Names of the outputs to return; by default all.
            timeout: Seconds for this call, in place of the client's.

        Returns:
            The outputs by name as `outputs`; over gRPC `spec.version` is the version that answered.

        Raises:
            ServingError: The server refused, failed, or could not be reached.
            ValueError: The inputs do not fit the signature.
            OSError: A file cannot be read.
        """
        spec = ModelSpec(self._model, version, label, signature)
        limits = self._limits(timeout)
        if are_arrays(inputs) and not self._calls.needs_signatures:
            return await self._calls.predict(spec, inputs, outputs, None, limits)
        is_remembered = spec in self._signatures
        try:
            return await self._predict_by_signature(spec, inputs, outputs, limits)
        except ServingError as error:
            has_changed = isinstance(error, SignatureChangedError)
            if has_changed or error.code is Code.INVALID_ARGUMENT:
                self._signatures.pop(spec, None)  # it may be that of an older version
            if not (has_changed and is_remembered):
                raise
        return await self._predict_by_signature(spec, inputs, outputs, limits)

    async def classify(
        self,
        examples: Sequence[Example],
        *,
        context: Example | None = None,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[list[Class]]:
        """The classes of examples, each a label and a score, in the order of the signature.

        Args:
            examples: The values of the features of each: numbers, text, bytes, files, images, or lists of them.
            context: Features that all examples share.
            signature: Its name; `serving_default` by default.
            version: The version to call; by default, and without a label, the newest.
            label: The label of the version to call.
            timeout: Seconds for this call, in place of the client's.

        Raises:
            ServingError: The server refused, failed, or could not be reached.
            ValueError: A feature is of no type that a tf.Example can hold.
            OSError: A file cannot be read.
        """
        spec = ModelSpec(self._model, version, label, signature)
        return await self._calls.classify(spec, to_examples(examples, context), self._limits(timeout))

    async def regress(
        self,
        examples: Sequence[Example],
        *,
        context: Example | None = None,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> np.ndarray:
        """The value of each example, float32. Arguments and errors are those of `classify`."""
        spec = ModelSpec(self._model, version, label, signature)
        return await self._calls.regress(spec, to_examples(examples, context), self._limits(timeout))

    async def metadata(
        self, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> dict[str, Signature]:
        """The signatures of a version by name: their inputs and outputs with dtypes and shapes."""
        return await self._calls.metadata(ModelSpec(self._model, version, label), self._limits(timeout))

    async def status(self, *, version: int | None = None, timeout: float | None = None) -> list[VersionStatus]:
        """The states of the model's versions, newest first, or of one of them."""
        return await self._calls.status(ModelSpec(self._model, version), self._limits(timeout))

    async def wait_until_ready(self, *, version: int | None = None, timeout: float | None = None) -> None:
        """Returns once a version answers requests. The server need not have started yet.

        Raises ServingError with DEADLINE_EXCEEDED, and with the state that was last seen, after the timeout.
        """
        spec = ModelSpec(self._model, version)
        limits = self._limits(timeout)
        while reason := await self._why_not_ready(spec, limits.first(_LONGEST_LOOK)):
            if not await limits.wait(_LOOK_AGAIN):
                raise ServingError(Code.DEADLINE_EXCEEDED, f"{spec.name} is not ready: {reason}")

    async def close(self) -> None:
        """Closes the connections."""
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def _limits(self, timeout: float | None) -> Limits:
        return Limits(self._timeout if timeout is None else timeout, self._retries, self._is_async)

    async def _predict_by_signature(
        self, spec: ModelSpec, inputs: Inputs, outputs: Sequence[str], limits: Limits
    ) -> Prediction:
        signature = self._signatures.get(spec)
        if signature is None:
            signature = self._signatures[spec] = _find(spec, await self._calls.metadata(spec, limits))
        if unknown := set(outputs) - signature.outputs.keys():
            text = f"signature {signature.name} has no output {', '.join(sorted(unknown))}"
            raise ServingError(Code.INVALID_ARGUMENT, f"{text}; it has {', '.join(sorted(signature.outputs))}")
        arrays = inputs if are_arrays(inputs) else to_arrays(inputs, signature)
        return await self._calls.predict(spec, arrays, outputs, signature, limits)

    async def _why_not_ready(self, spec: ModelSpec, limits: Limits) -> str:
        """The state of each version, or the error of a server that is not there yet; empty once one is available."""
        try:
            statuses = await self._calls.status(spec, limits)
        except ServingError as error:
            if error.code not in _NOT_YET:
                raise
            return str(error)
        if any(each.state is State.AVAILABLE for each in statuses):
            return ""
        reasons = (f" ({each.message})" if each.message else "" for each in statuses)
        states = (f"version {each.version} is {each.state.name}" for each in statuses)
        return ", ".join(map(str.__add__, states, reasons)) or "no version"


def _open(url: str, tls: Tls, token: str | None, is_async: bool) -> GrpcCalls | RestCalls:
    """Opens the protocol that the URL names. The library of the other one is not imported.

    Raises ValueError if the URL names neither, MissingPackageError if the library is not installed.
    """
    scheme = urlsplit(url).scheme
    with needing("client"):
        if scheme in ("grpc", "grpcs", "unix"):
            from serving.client.grpc_calls import GrpcCalls

            return GrpcCalls(url, tls, token, is_async)
        if scheme in ("http", "https"):
            from serving.client.rest_calls import RestCalls

            return RestCalls(url, tls, token, is_async)
    raise ValueError(f"{url}: give grpc://host:8500, grpcs://, unix:/path, http://host:8501 or https://")


def _find(spec: ModelSpec, signatures: Mapping[str, Signature]) -> Signature:
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in signatures:
        known = ", ".join(sorted(signatures))
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found; the model has {known}')
    return signatures[name]
