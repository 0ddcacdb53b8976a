"""`python -m serving`: flags, and the engine that serves."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from serving import flags
from serving.errors import MissingPackageError, ServingError
from serving.process import Interruptions
from serving.usage import usage

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = ("batch", "parity")
"""Other commands than to serve: `serving.<name>.command` has the `main` of each."""
START_UP_FAILURE = 255  # tensorflow_model_server returns -1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until a signal ends it, or runs the command that the first argument names. Returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        status: int = import_module(f"serving.{arguments[0]}.command").main(arguments[1:])
        return status
    interruptions = Interruptions()
    try:
        command_line = flags.parse(arguments)
    except flags.FlagError as error:
        print(usage(), flush=True)
        print(error, file=sys.stderr)  # last, where it does not scroll away
        return START_UP_FAILURE
    flags.warn_of_unknown(command_line)
    if command_line.wants_help:
        print(usage())
        return 0
    if command_line.wants_version:
        print(_versions())
        return 0
    return _serve(command_line, interruptions)


def _serve(command_line: flags.CommandLine, interruptions: Interruptions) -> int:
    engine = import_module(f"serving.engines.{command_line.options.engine}")
    try:
        status: int = engine.serve(command_line, interruptions)
    except (ServingError, MissingPackageError) as error:
        reason = " ".join(str(error).split())
        print(f"Failed to start server. Error: {reason}", flush=True)
        return START_UP_FAILURE
    return status


def _versions() -> str:
    own, runtime = (_version(name) for name in ("keras_prelu", "tensorflow"))
    return f"TensorFlow ModelServer: {own} (keras_prelu)\nTensorFlow Library: {runtime}"


def _version(distribution: str) -> str:
    from importlib import metadata  # slow, and rarely needed

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
