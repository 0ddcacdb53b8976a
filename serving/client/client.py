"""The client that blocks."""

import functools
from collections.abc import Callable, Coroutine
from typing import Concatenate, ParamSpec, Self, TypeVar

from serving.client.async_client import AsyncClient
from serving.client.connection import Retries, Tls

P = ParamSpec("P")
T = TypeVar("T")


class _BlockingCalls(AsyncClient):
    """The calls of `AsyncClient` over libraries that block, so that its coroutines never suspend."""

    _is_async = False


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[None, None, T]],
) -> Callable[Concatenate["Client", P], T]:
    """The method of `Client` that runs a coroutine of `AsyncClient`, without an event loop, as it never suspends."""

    @functools.wraps(method)
    def call(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            method(client._calls, *args, **kwargs).send(None)
        except StopIteration as end:
            answer: T = end.value
            return answer
        raise RuntimeError("a call that should block was suspended")

    return call


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

    predict = _blocking(AsyncClient.predict)
    classify = _blocking(AsyncClient.classify)
    regress = _blocking(AsyncClient.regress)
    metadata = _blocking(AsyncClient.metadata)
    status = _blocking(AsyncClient.status)
    wait_until_ready = _blocking(AsyncClient.wait_until_ready)
    close = _blocking(AsyncClient.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
