"""The command line, in TensorFlow Serving's spelling: --name=value, --name value, --boolean."""

import dataclasses
import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.options import IGNORED, Options

__all__ = ["CommandLine", "FlagError", "Options", "parse", "usage", "warn"]

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_SWITCHES = ("help", "version")
_NEAR = 0.75  # of difflib: two wrong letters in a name of eight, or one in "port"


class FlagError(ValueError):
    """A command line that cannot be followed; its text says which flag, and what it would take."""


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line; `unknown` arguments and `ignored` flags mean nothing here."""

    options: Options
    unknown: Sequence[str] = ()
    ignored: Sequence[str] = ()
    wants_help: bool = False
    wants_version: bool = False


@dataclass(frozen=True)
class _Flag:
    name: str
    kind: Any
    default: Any = None
    least: int | None = None
    most: int | None = None


def parse(arguments: Sequence[str]) -> CommandLine:
    """Reads a command line. Raises FlagError where a value does not fit its flag, or a flag is misspelt."""
    flags = _flags()
    values: dict[str, Any] = {}
    unknown: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in flags:
            _check_spelling(argument)
            unknown.append(argument)
            continue
        flag = flags[name]
        values[name] = _value(flag, text if equals else _next_value(flag, rest))
    switches = [bool(values.pop(name, False)) for name in _SWITCHES]
    ignored = [name for name in values if name in IGNORED]
    for name in ignored:
        del values[name]
    return CommandLine(Options(**values), unknown, ignored, *switches)


def usage() -> str:
    """The flags, each with its default and its meaning."""
    lines = ["usage: python -m serving --model_name=NAME --model_base_path=DIRECTORY [flags]", ""]
    for field in dataclasses.fields(Options):
        shown = str(field.default).lower() if isinstance(field.default, bool) else repr(field.default)
        lines.append(f"  --{field.name}={shown}")
        lines.append(f"      {field.metadata['meaning']}")
    lines += ["  --version", "      Print the version and exit.", "  --help", "      Print this and exit.", ""]
    lines += ["Taken without effect: " + ", ".join(f"--{name}" for name in IGNORED)]
    return "\n".join(lines)


def warn(command_line: CommandLine) -> None:
    """Says which arguments mean nothing here; as in TensorFlow Serving the server goes on without them."""
    for argument in command_line.unknown:
        print(f"unknown argument: {argument}", file=sys.stderr)
    for name in command_line.ignored:
        print(f"--{name} has no effect in this server", file=sys.stderr)


def _flags() -> dict[str, _Flag]:
    flags = {name: _Flag(name, bool) for name in _SWITCHES}
    flags |= {name: _Flag(name, kind, default=kind()) for name, kind in IGNORED.items()}
    for field in dataclasses.fields(Options):
        flags[field.name] = _Flag(
            field.name, field.type, field.default, field.metadata["least"], field.metadata["most"]
        )
    return flags


def _check_spelling(argument: str) -> None:
    # TensorFlow Serving passes all over that it does not know; --auth_token_fil=... would let everybody in then.
    names = {field.name.replace("_", ""): field.name for field in dataclasses.fields(Options)}
    letters = argument.partition("=")[0].lower().replace("-", "").replace("_", "")
    for near in difflib.get_close_matches(letters, names, 1, _NEAR):
        raise FlagError(f"unknown argument: {argument}; did you mean --{names[near]}?")


def _next_value(flag: _Flag, rest: list[str]) -> str:
    if flag.kind is bool:  # stands alone, unless a truth value follows
        return rest.pop(0) if rest and rest[0].lower() in _BOOLEANS else "true"
    if not rest:
        raise FlagError(f"--{flag.name} needs a value, for example --{flag.name}={flag.default}")
    return rest.pop(0)


def _value(flag: _Flag, text: str) -> Any:
    value = _convert(flag, text)
    if (flag.least is not None and value < flag.least) or (flag.most is not None and value > flag.most):
        bounds = f"from {flag.least} to {flag.most}" if flag.most is not None else f"{flag.least} or more"
        raise FlagError(f"--{flag.name}={text} is out of range; it takes {bounds}")
    return value


def _convert(flag: _Flag, text: str) -> Any:
    if flag.kind is bool:
        if text.lower() not in _BOOLEANS:
            raise FlagError(f"--{flag.name}={text} does not parse; it takes true or false")
        return _BOOLEANS[text.lower()]
    try:
        return flag.kind(text)
    except ValueError:
        wanted = "a whole number" if flag.kind is int else "a number"
        raise FlagError(f"--{flag.name}={text} does not parse; it takes {wanted}") from None
