"""What calls do, step by step. Who sends and who sleeps, a client that blocks or one that awaits, is not said here."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from serving.client.features import to_features
from serving.client.inputs import are_arrays, to_arrays
from serving.client.retries import Limits, Retries
from serving.client.wire import Call, Class, Examples, SignatureChangedError, Wire
from serving.errors import Code, ServingError
from serving.wire.requests import ModelSpec, Prediction
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature
from serving.wire.version_status import State, VersionStatus

T = TypeVar("T")

_LOOK_AGAIN = 0.1  # seconds, while a model is waited for
_NOT_YET = (Code.UNAVAILABLE, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED)  # how a server that starts answers
_LONGEST_LOOK = 5.0  # seconds for one look


class Send(NamedTuple):
    """Send a request, and give back the reply, or throw the ServingError that it ended with."""

    request: Any
    timeout: float | None


class Pause(NamedTuple):
    """Do nothing for some seconds."""

    seconds: float


Steps = Generator[Send | Pause, Any, T]


class Caller:
    """The calls of a client over one wire format. It remembers signatures, which JSON cannot be read without."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._signatures: dict[ModelSpec, Signature] = {}

    def predict(self, spec: ModelSpec, inputs: Any, output_names: Sequence[str], limits: Limits) -> Steps[Prediction]:
        """Arrays, or what becomes them, to arrays."""
        if are_arrays(inputs) and not self._wire.needs_signatures:
            return _send(self._wire.predict(spec, inputs, output_names, None), limits)
        return self._predict_by_signature(spec, inputs, output_names, limits)

    def _predict_by_signature(
        self, spec: ModelSpec, inputs: Any, output_names: Sequence[str], limits: Limits
    ) -> Steps[Prediction]:
        remembered = spec in self._signatures
        try:
            return (yield from self._predict(spec, inputs, output_names, limits))
        except SignatureChangedError:
            if not remembered or not self._signatures.pop(spec, None):
                raise _unreadable(spec) from None
        except ServingError as error:
            if error.code is Code.INVALID_ARGUMENT:  # perhaps of a version that has gone
                self._signatures.pop(spec, None)
            raise
        try:
            return (yield from self._predict(spec, inputs, output_names, limits))
        except SignatureChangedError:
            raise _unreadable(spec) from None

    def classify(
        self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None, limits: Limits
    ) -> Steps[list[list[Class]]]:
        """Examples to labels with scores."""
        return _send(self._wire.classify(spec, _examples(examples, context)), limits)

    def regress(
        self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None, limits: Limits
    ) -> Steps[np.ndarray]:
        """Examples to a value each."""
        return _send(self._wire.regress(spec, _examples(examples, context)), limits)

    def metadata(self, spec: ModelSpec, limits: Limits) -> Steps[dict[str, Signature]]:
        """The signatures of a model."""
        return _send(self._wire.metadata(spec), limits)

    def status(self, spec: ModelSpec, limits: Limits) -> Steps[list[VersionStatus]]:
        """The versions of a model."""
        return _send(self._wire.status(spec), limits)

    def wait_until_ready(self, spec: ModelSpec, timeout: float | None) -> Steps[None]:
        """Returns once a version is available: the one that is meant, or any."""
        once = Retries(attempts=1)
        limits = Limits(timeout, once)
        while True:
            remaining = limits.remaining()
            look = Limits(_LONGEST_LOOK if remaining is None else min(_LONGEST_LOOK, remaining), once)
            try:
                statuses = yield from _send(self._wire.status(spec), look)
            except ServingError as error:
                if error.code not in _NOT_YET:
                    raise
                seen = str(error)
            else:
                if any(each.state is State.AVAILABLE for each in statuses):
                    return
                seen = ", ".join(_told(each) for each in statuses)
            if not limits.allows(_LOOK_AGAIN):
                raise ServingError(Code.DEADLINE_EXCEEDED, f"{spec.name} is not ready: {seen}")
            yield Pause(_LOOK_AGAIN)

    def _predict(self, spec: ModelSpec, inputs: Any, output_names: Sequence[str], limits: Limits) -> Steps[Prediction]:
        signature = self._signatures.get(spec)
        if signature is None:
            signatures = yield from _send(self._wire.metadata(spec), limits)
            signature = self._signatures[spec] = _find(spec, signatures)
        _check_outputs(signature, output_names)
        arrays = inputs if are_arrays(inputs) else to_arrays(inputs, signature)
        call = self._wire.predict(spec, arrays, output_names, signature)
        return (yield from _send(call, limits))


def _send(call: Call[T], limits: Limits) -> Steps[T]:
    waits = None
    while True:
        try:
            reply = yield Send(call.request, limits.remaining())
        except ServingError as error:
            waits = waits or limits.retries.waits()
            wait = next(waits, None) if error.code is Code.UNAVAILABLE else None
            if wait is None or not limits.allows(wait):
                raise
        else:
            return call.decode(reply)
        yield Pause(wait)


def _examples(examples: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None) -> Examples:
    return Examples([to_features(each) for each in examples], None if context is None else to_features(context))


def _find(spec: ModelSpec, signatures: Mapping[str, Signature]) -> Signature:
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in signatures:
        known = ", ".join(sorted(signatures))
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found; the model has {known}')
    return signatures[name]


def _check_outputs(signature: Signature, output_names: Sequence[str]) -> None:
    for name in output_names:
        if name not in signature.outputs:
            known = ", ".join(sorted(signature.outputs))
            raise ServingError(
                Code.INVALID_ARGUMENT, f"signature {signature.name} has no output {name}; it has {known}"
            )


def _unreadable(spec: ModelSpec) -> ServingError:
    return ServingError(Code.INTERNAL, f"the reply does not fit the signature that {spec.name} says it has")


def _told(status: VersionStatus) -> str:
    reason = f" ({status.message})" if status.message else ""
    return f"version {status.version} is {status.state.name}{reason}"
