"""The client that awaits."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import numpy as np

from serving.client.connection import Server, Tls
from serving.client.retries import Limits, Retries
from serving.client.steps import Caller, Pause, Steps
from serving.client.transports import open_async_transport
from serving.client.wire import Class
from serving.errors import ServingError
from serving.wire.requests import ModelSpec, Prediction
from serving.wire.signatures import Signature
from serving.wire.version_status import VersionStatus

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same arguments, answers and errors, awaited. It belongs to one event loop.

    Example:
        ```python
        async with AsyncClient("http://localhost:8501", "digits") as client:
            answers = await asyncio.gather(*(client.predict(image) for image in images))
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
        self._transport = open_async_transport(Server(url, tls, token))
        self._caller = Caller(self._transport.wire)

    async def predict(
        self,
        inputs: Any,
        *,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Prediction:
        """Runs a signature, as `Client.predict` does."""
        spec = ModelSpec(self._model, version, label, signature)
        return await self._run(self._caller.predict(spec, inputs, outputs, self._limits(timeout)))

    async def classify(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[list[Class]]:
        """The classes of examples, as `Client.classify` gives them."""
        spec = ModelSpec(self._model, version, label, signature)
        return await self._run(self._caller.classify(spec, examples, context, self._limits(timeout)))

    async def regress(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> np.ndarray:
        """The value of each example, float32. Arguments and errors are those of `Client.classify`."""
        spec = ModelSpec(self._model, version, label, signature)
        return await self._run(self._caller.regress(spec, examples, context, self._limits(timeout)))

    async def metadata(
        self, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> dict[str, Signature]:
        """The signatures of a version by name: their inputs and outputs with types and shapes."""
        return await self._run(self._caller.metadata(ModelSpec(self._model, version, label), self._limits(timeout)))

    async def status(self, *, version: int | None = None, timeout: float | None = None) -> list[VersionStatus]:
        """How the versions of the model are, newest first, or one of them."""
        return await self._run(self._caller.status(ModelSpec(self._model, version), self._limits(timeout)))

    async def wait_until_ready(self, *, version: int | None = None, timeout: float | None = None) -> None:
        """Returns once a version answers requests; a server that has not started yet is waited for.

        Raises ServingError with DEADLINE_EXCEEDED, and with what was last seen, after the timeout.
        """
        seconds = self._timeout if timeout is None else timeout
        await self._run(self._caller.wait_until_ready(ModelSpec(self._model, version), seconds))

    async def close(self) -> None:
        """Ends the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def _limits(self, timeout: float | None) -> Limits:
        return Limits(self._timeout if timeout is None else timeout, self._retries)

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    reply = await self._transport.send(step.request, step.timeout)
                except ServingError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            answer: T = end.value
            return answer
