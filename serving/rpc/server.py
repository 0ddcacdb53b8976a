"""The gRPC server: which services it has, and where and how it listens."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from serving.admission.policy import Policy
from serving.admission.threads import RequestThreads
from serving.api.service import Service
from serving.background import BackgroundThread
from serving.call import GRPC
from serving.errors import Code, ServingError, invalid_argument
from serving.options import Options
from serving.rpc.health import Health
from serving.rpc.interceptor import Interceptor
from serving.rpc.profiler import Profiler
from serving.rpc.servicers import ModelServicer, PredictionServicer

T = TypeVar("T")
Credentials = Callable[[], grpc.ServerCredentials | None]
"""Makes those of one address; None if it is plain."""

_DEFAULT_ARGUMENTS = {
    "grpc.so_reuseport": 0,  # two servers on one port would share its requests without a word
    "grpc.max_concurrent_streams": 1000,  # of one connection; gRPC itself has no limit
    "grpc.keepalive_time_ms": 120_000,  # a client that is silent for so long must answer a ping
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.http2.min_ping_interval_without_data_ms": 60_000,  # clients that ping more often are sent away
}


class GrpcServer:
    """The gRPC API of a service, in an event loop that has a thread of its own, and threads that run models."""

    def __init__(self, service: Service, options: Options, policy: Policy) -> None:
        self.port = 0
        """0 unless it listens on one."""
        self.threads = RequestThreads(options.grpc_max_threads, "grpc")
        self._service = service
        self._options = options
        self._arguments = _arguments(options)
        self._interceptor = Interceptor(policy, self.threads)
        self._loop = uvloop.new_event_loop()
        self._thread = BackgroundThread(self._loop.run_forever, "grpc")
        self._server: grpc.aio.Server | None = None
        self._stopping: Future[None]
        self._health: Health | None = None
        if options.enable_grpc_healthcheck_service:
            self._health = Health(service.repository.availability, self._loop)
            service.repository.on_change(self._health.update)

    def start(self, bound: socket.socket | None, path: str, credentials: Credentials) -> None:
        """Listens at the address of a bound socket, which is closed as gRPC takes only addresses, and on a UNIX socket.

        Raises ServingError if it cannot.
        """
        if bound is None and not path:
            return
        self._service.gauges.watch(GRPC, self.threads)
        self._thread.start()
        self._server = self._wait(self._make_server())
        if bound is not None:
            self.port = _listen(self._server, bound, credentials())
        if path:
            _add_port(self._server, f"unix:{Path(path).absolute()}", credentials(), f"--grpc_socket_path={path}")
        self._wait(self._server.start())

    def leave(self) -> None:
        """Tells the clients that ask for its health that no more calls should come."""
        if self._health is not None:
            self._health.leave()

    def stop(self, grace: float) -> None:
        """Begins to refuse new calls; cancels those that have not ended after a number of seconds."""
        if self._thread.is_alive():
            self._stopping = asyncio.run_coroutine_threadsafe(self._stop(grace), self._loop)

    def join(self) -> None:
        """Waits until `stop` has ended all calls."""
        if self._thread.is_alive():
            self._stopping.result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _stop(self, grace: float) -> None:
        end = self._loop.time() + grace
        if grace:
            await self._interceptor.drain()
        if self._server is not None:
            await self._server.stop(max(0.0, end - self._loop.time()))

    async def _make_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(interceptors=[self._interceptor], options=list(self._arguments.items()))
        options = self._options
        prediction = PredictionServicer(self._service, options.enable_serialization_as_tensor_content)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
        model = ModelServicer(self._service, options.enable_reload_config_request)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(model, server)
        files = prediction_service_pb2.DESCRIPTOR, model_service_pb2.DESCRIPTOR
        names = [service.full_name for file in files for service in file.services_by_name.values()]
        if self._health is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            names.append("grpc.health.v1.Health")
        if options.enable_profiler:
            server.add_generic_rpc_handlers((Profiler().handlers(),))
        if options.enable_grpc_reflection:
            reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
        return server

    def _wait(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _arguments(options: Options) -> dict[str, str | int]:
    most_connections = options.grpc_max_connections
    return {
        **_DEFAULT_ARGUMENTS,
        "grpc.max_send_message_length": 2**31 - 1,
        "grpc.max_receive_message_length": options.grpc_max_message_bytes,
        **({"grpc.max_allowed_incoming_connections": most_connections} if most_connections else {}),
        **parse_channel_arguments(options.grpc_channel_arguments),
    }


def parse_channel_arguments(text: str) -> dict[str, str | int]:
    """Arguments of gRPC from "key=value,key=value"; whole numbers are passed as such."""
    arguments: dict[str, str | int] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise invalid_argument(f"--grpc_channel_arguments={text} does not parse; it takes key=value,key=value")
        arguments[key] = int(value) if value.removeprefix("-").isdecimal() else value
    return arguments


def _listen(server: grpc.aio.Server, bound: socket.socket, credentials: grpc.ServerCredentials | None) -> int:
    host, port = bound.getsockname()[:2]
    bound.close()
    address = f"[{host}]" if ":" in host else host
    return _add_port(server, f"{address}:{port}", credentials, f"--port={port}")


def _add_port(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None, flag: str) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ServingError(Code.UNAVAILABLE, f"Cannot listen on {flag}: {error}") from error
