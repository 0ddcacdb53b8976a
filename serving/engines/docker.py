"""TensorFlow Serving in a container of its image, which the environment variable TENSORFLOW_SERVING_IMAGE may name."""

import csv
import io
import os
import shutil
import signal
from collections.abc import Iterator, Mapping

from serving.engines import child_process
from serving.engines.tensorflow_model_server import NAME, PATHS, as_arguments, is_remote, translate
from serving.errors import Code, ServingError, invalid_argument
from serving.flags import CommandLine
from serving.options import Options
from serving.process import Interruptions, bind
from serving.wire.protos import ModelServerConfig, read_text

_VARIABLE, _IMAGE = "TENSORFLOW_SERVING_IMAGE", "tensorflow/serving"


def serve(command_line: CommandLine, interruptions: Interruptions) -> int:
    """Runs a container until it ends. Returns its exit status. Raises ServingError if it cannot start."""
    options = command_line.options
    options.check()
    if options.grpc_socket_path:
        raise invalid_argument(
            f"--grpc_socket_path={options.grpc_socket_path}: nobody reaches a socket in a container; leave the flag "
            f"out, or take --engine={NAME}"
        )
    flags = translate(command_line)
    command = [
        *(_docker(), "run", "--rm"),
        "--init",  # the first process of a container ignores SIGTERM unless it handles it
        *(f"--publish={published}" for published in dict.fromkeys(_ports(options))),
        *(f"--mount={_mount(path)}" for path in dict.fromkeys(_paths(flags))),
        *(f"--entrypoint={NAME}", os.environ.get(_VARIABLE) or _IMAGE),
        *as_arguments(flags),
    ]
    # Killed, docker would leave the container behind; it passes SIGTERM on.
    return child_process.run(command, options, interruptions, signal.SIGTERM)


def _docker() -> str:
    found = shutil.which("docker")
    if found is None:
        raise ServingError(Code.NOT_FOUND, f"docker is not on PATH; install it, or take --engine={NAME} or embedded")
    return found


def _ports(options: Options) -> Iterator[str]:
    """The ports at the host's address, as docker wants them. Raises ServingError if one is taken."""
    for flag, port in (("port", options.port), ("rest_api_port", options.rest_api_port)):
        if port:
            with bind(options.host, port, flag) as bound:
                address = bound.getsockname()[0]
            yield f"[{address}]:{port}:{port}" if ":" in address else f"{address}:{port}:{port}"


def _paths(flags: Mapping[str, str]) -> Iterator[str]:
    """The files and folders that the server reads."""
    paths = {name: flags[name] for name in PATHS if flags.get(name)}
    if "model_config_file" in paths:
        paths.pop("model_base_path", None)  # which is then ignored
        listed = read_text(paths["model_config_file"], ModelServerConfig).model_config_list.config
        paths |= {f"base_path of {each.name}": each.base_path for each in listed}
    for name, path in paths.items():
        if is_remote(path):
            continue
        if not os.path.exists(path):
            raise ServingError(Code.NOT_FOUND, f"{name}: {path} is not there; docker mounts only what exists")
        yield path


def _mount(path: str) -> str:
    """A mount that can only be read, at the same path; docker reads it as a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["type=bind", f"source={path}", f"target={path}", "readonly"])
    return text.getvalue()
