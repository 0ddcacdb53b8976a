"""grpc.health.v1: whether the models answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.errors import Code, ServingError

SERVICES = (
    "",
    "ModelService",  # TensorFlow Serving's two names lack the package
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
)
"""The services that answer if every configured model does. A model's name is a service too, and stands for it alone."""

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """The health service. In that of grpcio-health-checking, one client that does not read stops the news for all."""

    def __init__(self, availability: Callable[[], Mapping[str, bool]], loop: asyncio.AbstractEventLoop) -> None:
        self._availability = availability
        self._loop = loop
        self._changed = asyncio.Event()
        self._is_leaving = False

    def update(self) -> None:
        """Lets those that watch know of a change. Any thread may call it."""
        if not self._is_leaving:
            self._loop.call_soon_threadsafe(self._wake)

    def leave(self) -> None:
        """Says from now on that nothing answers."""
        if not self._is_leaving:
            self._is_leaving = True
            self._loop.call_soon_threadsafe(self._wake)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: object) -> AsyncIterator[_Response]:  # noqa: N802
        """Tells whether a service answers now."""
        status = self._status(request.service)
        if status == _Response.SERVICE_UNKNOWN:
            raise ServingError(Code.NOT_FOUND, "")
        yield _Response(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: object) -> AsyncIterator[_Response]:  # noqa: N802
        """Tells whether a service answers, now and after each change."""
        told = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != told:
                yield _Response(status=status)
            told = status
            await changed.wait()

    def _status(self, service: str) -> int:
        models = self._availability()
        if service not in SERVICES and service not in models:
            return _Response.SERVICE_UNKNOWN
        serves = all(models.values()) if service in SERVICES else models[service]
        return _Response.SERVING if serves and not self._is_leaving else _Response.NOT_SERVING

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
