"""The command line, in TensorFlow Serving's spelling: --name=value, --name value, --boolean."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_NUM_THREADS = 4 * (os.cpu_count() or 1)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class FlagError(ValueError):
    """A command line that cannot be followed; its text says which flag, and what it would take."""


def _flag(default: T, meaning: str, least: int | None = None, most: int | None = None) -> T:
    return dataclasses.field(default=default, metadata={"meaning": meaning, "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the server is told on its command line."""

    port: int = _flag(8500, "TCP port of the gRPC API; 0 turns it off.", 0, 65535)
    rest_api_port: int = _flag(0, "TCP port of the REST API; 0 turns it off.", 0, 65535)
    host: str = _flag("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
    model_name: str = _flag("default", "Name under which clients ask for the model.")
    model_base_path: str = _flag("", "Directory with a numbered subdirectory for each version of the model.")
    file_system_poll_wait_seconds: float = _flag(
        1, "Seconds between looks for new versions; 0 looks once, a negative number never."
    )
    rest_api_timeout_in_ms: int = _flag(30000, "Time that a REST request may take to run.", 1)
    enable_model_warmup: bool = _flag(True, "Whether to replay a version's warm-up requests before it serves.")
    rest_api_num_threads: int = _flag(_NUM_THREADS, "Threads that answer REST requests.", 1)
    grpc_max_threads: int = _flag(_NUM_THREADS, "Threads that answer gRPC requests.", 1)
    saved_model_tags: str = _flag("serve", "Tags, with commas between, of the graph to load.")


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line; `unknown` are the arguments that mean nothing here."""

    options: Options
    unknown: Sequence[str] = ()
    wants_help: bool = False
    wants_version: bool = False


def parse(arguments: Sequence[str]) -> CommandLine:
    """Reads a command line. Raises FlagError where a value does not fit its flag."""
    fields = {field.name: field for field in dataclasses.fields(Options)}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    switches = {"help": False, "version": False}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or (name not in fields and name not in switches):
            unknown.append(argument)
        elif name in switches:
            switches[name] = _convert(name, bool, text if equals else "true")
        else:
            values[name] = _value(fields[name], text if equals else _next_value(fields[name], rest))
    return CommandLine(Options(**values), unknown, switches["help"], switches["version"])


def usage() -> str:
    """The flags, each with its default and its meaning."""
    lines = ["usage: python -m serving --model_name=NAME --model_base_path=DIRECTORY [flags]", ""]
    defaults = Options()
    for field in dataclasses.fields(Options):
        default = getattr(defaults, field.name)
        shown = str(default).lower() if isinstance(default, bool) else repr(default)
        lines.append(f"  --{field.name}={shown}")
        lines.append(f"      {field.metadata['meaning']}")
    lines += ["  --version", "      Print the version and exit.", "  --help", "      Print this and exit."]
    return "\n".join(lines)


def _next_value(field: Any, rest: list[str]) -> str:
    if field.type is bool:  # stands alone, unless a truth value follows
        return rest.pop(0) if rest and rest[0].lower() in _BOOLEANS else "true"
    if not rest:
        raise FlagError(f"--{field.name} needs a value, for example --{field.name}={field.default}")
    return rest.pop(0)


def _value(field: Any, text: str) -> Any:
    value = _convert(field.name, field.type, text)
    least, most = field.metadata["least"], field.metadata["most"]
    if (least is not None and value < least) or (most is not None and value > most):
        bounds = f"from {least} to {most}" if most is not None else f"{least} or more"
        raise FlagError(f"--{field.name}={text} is out of range; it takes {bounds}")
    return value


def _convert(name: str, kind: Any, text: str) -> Any:
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise FlagError(f"--{name}={text} does not parse; it takes true or false")
        return _BOOLEANS[text.lower()]
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise FlagError(f"--{name}={text} does not parse; it takes {wanted}") from None


def warn_unknown(unknown: Sequence[str]) -> None:
    """Says which arguments mean nothing here; as in TensorFlow Serving the server goes on without them."""
    for argument in unknown:
        print(f"unknown argument: {argument}", file=sys.stderr)
