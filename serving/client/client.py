"""The client that blocks."""

from collections.abc import Coroutine, Sequence
from typing import Self, TypeVar

import numpy as np

from serving.client.async_client import AsyncClient
from serving.client.connection import Class, Retries, Tls
from serving.client.inputs import Example, Inputs
from serving.wire.requests import Prediction, VersionStatus
from serving.wire.signatures import Signature

T = TypeVar("T")


class _BlockingCalls(AsyncClient):
    """The calls of `AsyncClient` over libraries that block, so that its coroutines never suspend."""

    _is_async = False


class Client:
    """Calls a model server, this project's or TensorFlow Serving's. Threads may share one.

    Every call raises ServingError with the code and the text of the server's error, and with UNAVAILABLE or
    DEADLINE_EXCEEDED if the server cannot be reached.

    Args:
        url: `grpc://host:8500`, `grpcs://host` (over TLS), `unix:/path` of gRPC's socket, `http://host:8501` or
            `https://host`; a path after the host goes before REST's paths.
        model: The name of the model.
        timeout: Seconds that a call may take with all its attempts. Over gRPC it is the deadline of the call; over
            REST it bounds each wait for the server. None means no end.
        retries: How often a call is repeated if the server cannot be reached.
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
        self._calls = _BlockingCalls(url, model, timeout=timeout, retries=retries, tls=tls, token=token)

    def predict(
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
        return _run(
            self._calls.predict(
                inputs, signature=signature, version=version, label=label, outputs=outputs, timeout=timeout
            )
        )

    def classify(
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
        return _run(
            self._calls.classify(
                examples, context=context, signature=signature, version=version, label=label, timeout=timeout
            )
        )

    def regress(
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
        return _run(
            self._calls.regress(
                examples, context=context, signature=signature, version=version, label=label, timeout=timeout
            )
        )

    def metadata(
        self, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> dict[str, Signature]:
        """The signatures of a version by name: their inputs and outputs with dtypes and shapes."""
        return _run(self._calls.metadata(version=version, label=label, timeout=timeout))

    def status(self, *, version: int | None = None, timeout: float | None = None) -> list[VersionStatus]:
        """The states of the model's versions, newest first, or of one of them."""
        return _run(self._calls.status(version=version, timeout=timeout))

    def wait_until_ready(self, *, version: int | None = None, timeout: float | None = None) -> None:
        """Returns once a version answers requests. The server need not have started yet.

        Raises ServingError with DEADLINE_EXCEEDED, and with the state that was last seen, after the timeout.
        """
        _run(self._calls.wait_until_ready(version=version, timeout=timeout))

    def close(self) -> None:
        """Closes the connections."""
        _run(self._calls.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _run(coroutine: Coroutine[None, None, T]) -> T:
    """Runs a coroutine that never suspends, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    raise RuntimeError("a call that should block was suspended")
