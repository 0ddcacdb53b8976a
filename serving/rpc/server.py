"""The gRPC server: which services it has, and where and how it listens."""

import socket
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from serving.api.service import Service
from serving.errors import Code, ServingError, invalid_argument
from serving.options import Options
from serving.rpc.health import Health
from serving.rpc.profiler import Profiler
from serving.rpc.receiving import CallThreads
from serving.rpc.servicers import ModelServicer, PredictionServicer

_DEFAULT_ARGUMENTS = {
    "grpc.so_reuseport": 0,  # two servers on one port would share its requests without a word
    "grpc.max_concurrent_streams": 1000,  # of one connection; gRPC itself has no limit
    "grpc.keepalive_time_ms": 120_000,  # a client that is silent for so long must answer a ping
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.http2.min_ping_interval_without_data_ms": 60_000,  # clients that ping more often are sent away
}


def make_server(
    service: Service,
    options: Options,
    threads: CallThreads,
    health: Health | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
) -> grpc.Server:
    """A gRPC server over a service, with no port yet. Calls pass the first interceptor first."""
    most_connections = options.grpc_max_connections
    arguments = {
        **_DEFAULT_ARGUMENTS,
        "grpc.max_send_message_length": 2**31 - 1,
        "grpc.max_receive_message_length": options.grpc_max_message_bytes,
        **({"grpc.max_allowed_incoming_connections": most_connections} if most_connections else {}),
        **parse_channel_arguments(options.grpc_channel_arguments),
    }
    server = grpc.server(
        threads,
        interceptors=list(interceptors),
        options=list(arguments.items()),
        maximum_concurrent_rpcs=threads.number if threads.most_queued else None,
    )
    prediction = PredictionServicer(service, options.enable_serialization_as_tensor_content)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(service), server)
    names = [
        prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name,
        model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    ]
    if health is not None:
        health.add_to(server)
        names.append("grpc.health.v1.Health")
    if options.enable_profiler:
        server.add_generic_rpc_handlers((Profiler().handlers(),))
    if options.enable_grpc_reflection:
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    return server


def parse_channel_arguments(text: str) -> dict[str, str | int]:
    """Arguments of gRPC from "key=value,key=value"; whole numbers are passed as such."""
    arguments: dict[str, str | int] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise invalid_argument(f"--grpc_channel_arguments={text} does not parse; it takes key=value,key=value")
        arguments[key] = int(value) if value.removeprefix("-").isdecimal() else value
    return arguments


def listen(server: grpc.Server, bound: socket.socket, credentials: grpc.ServerCredentials | None) -> int:
    """Adds the address of a bound socket, which is closed, as gRPC takes only addresses. Returns the port."""
    host, port = bound.getsockname()[:2]
    bound.close()
    address = f"[{host}]" if ":" in host else host
    return _add_port(server, f"{address}:{port}", credentials, f"--port={port}")


def listen_on_path(server: grpc.Server, path: str, credentials: grpc.ServerCredentials | None) -> None:
    """Adds a UNIX socket."""
    _add_port(server, f"unix:{Path(path).absolute()}", credentials, f"--grpc_socket_path={path}")


def _add_port(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None, flag: str) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ServingError(Code.UNAVAILABLE, f"Cannot listen on {flag}: {error}") from error
