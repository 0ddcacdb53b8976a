"""What can be checked before TensorFlow is imported and a model loaded: flags that exclude one another, and ports."""

import os
import socket

from serving.errors import Code, ServingError, invalid_argument
from serving.options import Options


def check(options: Options) -> None:
    """Raises ServingError, with TensorFlow Serving's text where it has one, where no server can start."""
    check_options(options)
    for flag, port in (("port", options.port), ("rest_api_port", options.rest_api_port)):
        if port:
            bind(options.host, port, flag).close()


def check_options(options: Options) -> None:
    """Raises ServingError where flags are missing or exclude one another (server.cc)."""
    if not options.port and not options.grpc_socket_path and not options.rest_api_port:
        raise invalid_argument(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
        )
    if not options.model_base_path and not options.model_config_file:
        raise invalid_argument("Both server_options.model_base_path and server_options.model_config_file are empty!")
    if options.batching_parameters_file and not options.enable_batching:
        raise invalid_argument(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    parallelism = (
        options.tensorflow_session_parallelism,
        options.tensorflow_intra_op_parallelism,
        options.tensorflow_inter_op_parallelism,
    )
    if all(parallelism):
        raise invalid_argument(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all."
        )


def bind(host: str, port: int, flag: str) -> socket.socket:
    """A socket bound to an address, not listening yet; the flag is for the text of the error."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise invalid_argument(f"--host={host} is no address of this machine: {error.strerror}") from error
    bound = socket.socket(family, kind, protocol)
    # Connections of a server that has just ended may still linger; a server that listens is noticed anyhow.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ServingError(
            Code.UNAVAILABLE,
            f"Cannot listen on --{flag}={port} of {host}: {os.strerror(error.errno or 0)}. "
            "Stop what listens there, or give another port",
        ) from error
    return bound
