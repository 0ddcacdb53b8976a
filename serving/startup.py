"""What can be checked before TensorFlow is imported and a model loaded: ports and directories."""

import os
import socket
from pathlib import Path

from serving.errors import Code, ServingError, invalid_argument
from serving.flags import Options
from serving.storage import find_versions, holds_saved_model


def check(options: Options) -> None:
    """Raises ServingError, with what was given and what would do, where no server can start."""
    check_ports(options)
    check_directory(options.model_base_path)
    for flag, port in (("port", options.port), ("rest_api_port", options.rest_api_port)):
        if port:
            bind(options.host, port, flag).close()


def check_ports(options: Options) -> None:
    """There must be a port, and no port twice."""
    if not options.port and not options.rest_api_port:
        raise invalid_argument("Both --port and --rest_api_port are 0. Give at least one, for example --port=8500")
    if options.port == options.rest_api_port:
        raise invalid_argument(
            f"--port and --rest_api_port are both {options.port}. Give them different numbers, "
            "for example --port=8500 --rest_api_port=8501"
        )


def check_directory(base_path: str) -> None:
    """There must be a version to serve."""
    if not base_path:
        raise invalid_argument("--model_base_path is empty. Give the directory that holds the model's versions")
    path = Path(base_path)
    wanted = f"Expected a SavedModel in a numbered directory, for example {path / '1' / 'saved_model.pb'}"
    if not path.is_dir():
        reason = "is not a directory" if path.exists() else "does not exist"
        raise ServingError(Code.NOT_FOUND, f"--model_base_path={base_path} {reason}. {wanted}")
    try:
        versions = find_versions(path)
    except OSError as error:
        raise ServingError(
            Code.PERMISSION_DENIED, f"--model_base_path={base_path} cannot be read: {error.strerror}"
        ) from error
    if not versions:
        raise ServingError(Code.NOT_FOUND, f"--model_base_path={base_path} has no version in it. {wanted}")
    if not any(holds_saved_model(directory) for directory in versions.values()):
        listed = ", ".join(directory.name for directory in versions.values())
        raise ServingError(
            Code.NOT_FOUND,
            f"--model_base_path={base_path} has versions ({listed}), but no saved_model.pb in any. {wanted}",
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
