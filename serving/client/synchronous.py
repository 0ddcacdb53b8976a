"""The client that blocks."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import numpy as np

from serving.client.connection import Server, Tls
from serving.client.retries import Limits, Retries
from serving.client.steps import Caller, Pause, Steps
from serving.client.transports import open_transport
from serving.client.wire import Class
from serving.errors import ServingError
from serving.wire.requests import ModelSpec, Prediction
from serving.wire.signatures import Signature
from serving.wire.version_status import VersionStatus

T = TypeVar("T")


class Client:
    """Asks a model server, this project's or TensorFlow Serving's. Threads may share one.

    Every call raises ServingError with the code and the text of the server's error, and with UNAVAILABLE or
    DEADLINE_EXCEEDED where the server cannot be reached.

    Args:
        url: `grpc://host:8500`, `grpcs://host` (under TLS), `unix:/path` of gRPC's socket, `http://host:8501` or
            `https://host`; what follows the host is put before REST's paths.
        model: The name of the model.
        timeout: Seconds that a call may take with all its attempts. Over gRPC it is the deadline of the call; over
            REST it bounds each wait for the server. None means no end.
        retries: How often a call is made again where the server cannot be reached.
        tls: Certificates for `grpcs` and `https`.
        token: Sent as `Authorization: Bearer ...`.

    Raises:
        ValueError: The URL is of none of these kinds.
        OSError: A file of `tls` cannot be read.

    Example:
        ```python
        with Client("grpc://localhost:8500", "digits") as client:
            scores = client.predict(pathlib.Path("seven.png"), signature="image_bytes").outputs["scores"]
        ```
    """

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
        self._transport = open_transport(Server(url, tls, token))
        self._caller = Caller(self._transport.wire)

    def predict(
        self,
        inputs: Any,
        *,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Prediction:
        """Runs a signature.

        Args:
            inputs: A value for each input by name, or one value for a signature's only input. Arrays are sent as they
                are; numbers, strings and lists become the signature's type. Files (`pathlib.Path`), bytes and
                pictures of Pillow are read as the signature wants them, as encoded bytes or as pixels in 0..255 of
                the size that they have; one of them alone is a batch of one.
            signature: Its name; `serving_default` where there is none.
            version: The version to ask; the newest where there is neither it nor a label.
            label: The label of the version to ask.
            outputs: Names of the outputs to return; all where there are none.
            timeout: Seconds for this call, in place of the client's.

        Returns:
            The outputs by name as `outputs`; over gRPC `spec.version` is the version that answered.

        Raises:
            ServingError: The server refused, failed, or could not be reached.
            ValueError: The inputs do not fit the signature.
            OSError: A file cannot be read.
        """
        spec = ModelSpec(self._model, version, label, signature)
        return self._run(self._caller.predict(spec, inputs, outputs, self._limits(timeout)))

    def classify(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[list[Class]]:
        """The classes of examples, each a label and a score, as the signature orders them.

        Args:
            examples: For each the values of its features: numbers, text, bytes, files, pictures, or lists of them.
            context: Features that all examples have.
            signature: Its name; `serving_default` where there is none.
            version: The version to ask; the newest where there is neither it nor a label.
            label: The label of the version to ask.
            timeout: Seconds for this call, in place of the client's.

        Raises:
            ServingError: The server refused, failed, or could not be reached.
            ValueError: A feature is of no kind that an example can hold.
            OSError: A file cannot be read.
        """
        spec = ModelSpec(self._model, version, label, signature)
        return self._run(self._caller.classify(spec, examples, context, self._limits(timeout)))

    def regress(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> np.ndarray:
        """The value of each example, float32. Arguments and errors are those of `classify`."""
        spec = ModelSpec(self._model, version, label, signature)
        return self._run(self._caller.regress(spec, examples, context, self._limits(timeout)))

    def metadata(
        self, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> dict[str, Signature]:
        """The signatures of a version by name: their inputs and outputs with types and shapes."""
        return self._run(self._caller.metadata(ModelSpec(self._model, version, label), self._limits(timeout)))

    def status(self, *, version: int | None = None, timeout: float | None = None) -> list[VersionStatus]:
        """How the versions of the model are, newest first, or one of them."""
        return self._run(self._caller.status(ModelSpec(self._model, version), self._limits(timeout)))

    def wait_until_ready(self, *, version: int | None = None, timeout: float | None = None) -> None:
        """Returns once a version answers requests; a server that has not started yet is waited for.

        Raises ServingError with DEADLINE_EXCEEDED, and with what was last seen, after the timeout.
        """
        seconds = self._timeout if timeout is None else timeout
        self._run(self._caller.wait_until_ready(ModelSpec(self._model, version), seconds))

    def close(self) -> None:
        """Ends the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _limits(self, timeout: float | None) -> Limits:
        return Limits(self._timeout if timeout is None else timeout, self._retries)

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    reply = self._transport.send(step.request, step.timeout)
                except ServingError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            answer: T = end.value
            return answer
