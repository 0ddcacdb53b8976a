"""grpc.health.v1: whether the models answer."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICES = (
    "",
    "ModelService",  # TensorFlow Serving's two names lack the package
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
)
"""What answers when every configured model does. A model's name is a service too, and stands for that model."""


class Health:
    """The health service, kept in step by `update`."""

    def __init__(self, availability: Callable[[], Mapping[str, bool]]) -> None:
        self._availability = availability
        self._servicer = health.HealthServicer()
        self._told: dict[str, bool] = {}
        self.update()

    def add_to(self, server: grpc.Server) -> None:
        """Lets a server answer for it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def update(self) -> None:
        """Tells what has changed to those who watch."""
        models = dict(self._availability())
        gone = dict.fromkeys(self._told.keys() - models.keys(), False)
        states = gone | models | dict.fromkeys(SERVICES, all(models.values()))
        for service, serves in states.items():
            if self._told.get(service) != serves:
                self._servicer.set(service, _status(serves))
        self._told = states

    def stop(self) -> None:
        """Tells everybody that nothing answers any more."""
        self._servicer.enter_graceful_shutdown()


def _status(serves: bool) -> Any:
    response = health_pb2.HealthCheckResponse
    return response.SERVING if serves else response.NOT_SERVING
