"""The class that Ray Serve deploys: a replica, whose methods are those of gRPC."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ray import serve

from serving import background
from serving.engines import embedded
from serving.engines.ray_proxy import METHODS
from serving.errors import MissingPackageError, ServingError

if TYPE_CHECKING:
    from serving.options import Options

FAILED = "The replica cannot serve: "
"""The beginning of the text of an exception whose rest is for the user."""


@serve.ingress()
class Replica:
    """A server with all models, without sockets. It is ready when its models are loaded."""

    def __init__(self, options: Options) -> None:
        embedded.set_up_logging(sys.__stderr__)  # sys.stderr is Ray's own log
        try:
            embedded.prepare()
            from serving.engines.ray_replica import ReplicaServer

            self._server = ReplicaServer(options)
            self._server.start()
        except (ServingError, MissingPackageError) as error:
            raise RuntimeError(f"{FAILED}{' '.join(str(error).split())}") from None

    def __serve_build_asgi_app__(self) -> Any:
        return self._server.app

    def check_health(self) -> None:
        """Raises RuntimeError, whereupon Ray starts another replica, if a part of the server has died."""
        if background.dead():
            raise RuntimeError(f"Threads have died: {', '.join(background.dead())}")

    def __del__(self) -> None:
        if hasattr(self, "_server"):  # it was made
            self._server.stop()


def _method(path: str) -> Any:
    async def answer(self: Any, message: bytes, grpc_context: Any) -> Any:
        return await self._server.answer(path, message, grpc_context)

    return answer


for _service, _names in METHODS.items():
    for _name in _names:
        setattr(Replica, _name, _method(f"/{_service}/{_name}"))
