"""What both wire formats offer: calls that a transport sends, each with what makes its answer of the reply."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from serving.client.features import Features
from serving.wire.requests import ModelSpec, Prediction
from serving.wire.signatures import Signature
from serving.wire.version_status import VersionStatus

T = TypeVar("T")


class Class(NamedTuple):
    """A label and its score."""

    label: str
    score: float


class SignatureChangedError(Exception):
    """An answer that does not fit the signature: another version gave it."""


class Call(NamedTuple, Generic[T]):
    """What is sent, and what the reply to it says."""

    request: Any
    decode: Callable[[Any], T]


class Examples(NamedTuple):
    """tf.Examples, and the features that each of them has besides its own."""

    features: Sequence[Features]
    context: Features | None = None


class Wire(Protocol):
    """A wire format. Where `needs_signatures`, a prediction cannot be read without its signature."""

    needs_signatures: bool

    def predict(
        self,
        spec: ModelSpec,
        inputs: Mapping[str, np.ndarray],
        output_names: Sequence[str],
        signature: Signature | None,
    ) -> Call[Prediction]:
        """Runs a signature on tensors."""

    def classify(self, spec: ModelSpec, examples: Examples) -> Call[list[list[Class]]]:
        """Runs a classify signature on tf.Examples."""

    def regress(self, spec: ModelSpec, examples: Examples) -> Call[np.ndarray]:
        """Runs a regress signature on tf.Examples."""

    def metadata(self, spec: ModelSpec) -> Call[dict[str, Signature]]:
        """Asks for the signatures of a model."""

    def status(self, spec: ModelSpec) -> Call[list[VersionStatus]]:
        """Asks for the versions of a model."""


class Transport(Protocol):
    """Carries the requests of its wire format."""

    wire: Wire

    def send(self, request: Any, timeout: float | None) -> Any:
        """The reply to a request. Raises ServingError where there is none, or where it is an error."""

    def close(self) -> None:
        """Ends its connections."""


class AsyncTransport(Protocol):
    """Carries the requests of its wire format without blocking."""

    wire: Wire

    async def send(self, request: Any, timeout: float | None) -> Any:
        """The reply to a request. Raises ServingError where there is none, or where it is an error."""

    async def close(self) -> None:
        """Ends its connections."""
