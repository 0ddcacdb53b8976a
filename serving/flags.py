"""The command line, in TensorFlow Serving's spelling: --name=value, --name value, --boolean."""

import argparse
import dataclasses
import difflib
import functools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from serving.options import ENGINES, HOST_VARIABLE, IGNORED, Options

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_SWITCHES = ("help", "version")
_NEAR = 0.75  # of difflib: two wrong letters in a name of eight, or one in "port"

Value = bool | int | float | str


class FlagError(Exception):
    """A command line that cannot be followed. The text names the flag, and the values that it takes."""


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line: the options, and the names of those that were given.

    `unknown` arguments are no flags; `ignored` are flags of TensorFlow Serving that are no options here.
    """

    options: Options
    given: frozenset[str] = frozenset()
    unknown: Sequence[str] = ()
    ignored: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    wants_help: bool = False
    wants_version: bool = False


def parse(arguments: Sequence[str]) -> CommandLine:
    """Reads a command line. Raises FlagError if a value does not fit its flag, or a flag is misspelt."""
    found, unknown = _parser().parse_known_args(arguments)
    values: dict[str, Value] = _from_environment() | vars(found)
    for argument in unknown:
        _check_spelling(argument)
    for name, value in values.items():
        if value is None:
            raise FlagError(f"--{name} needs a value, for example --{name}={getattr(Options, name, '')}")
    switches = [bool(values.pop(name, False)) for name in _SWITCHES]
    ignored = {name: values.pop(name) for name in list(values) if name in IGNORED}
    options = Options(**values)  # type: ignore[arg-type]  # by the kinds above
    if options.engine not in ENGINES:
        raise FlagError(f"--engine={options.engine} is no engine; it takes {', '.join(ENGINES)}")
    return CommandLine(options, frozenset(values), unknown, ignored, *switches)


def warn_of_unknown(command_line: CommandLine) -> None:
    """Prints the arguments that are no flags; as in TensorFlow Serving the server starts without them."""
    for argument in command_line.unknown:
        print(f"unknown argument: {argument}", file=sys.stderr)


def warn_of_ignored(command_line: CommandLine) -> None:
    """Prints the flags of TensorFlow Serving that this server knows and has no use for."""
    for name in command_line.ignored:
        print(f"--{name} has no effect in this server", file=sys.stderr)


def _from_environment() -> dict[str, Value]:
    host = os.environ.get(HOST_VARIABLE)
    return {"host": host} if host else {}


@functools.cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, argument_default=argparse.SUPPRESS)
    bounds = {field.name: (field.metadata["least"], field.metadata["most"]) for field in dataclasses.fields(Options)}
    kinds = {field.name: cast(type, field.type) for field in dataclasses.fields(Options)}
    for name, kind in (dict.fromkeys(_SWITCHES, bool) | IGNORED | kinds).items():
        read = functools.partial(_read, name, kind, *bounds.get(name, (-math.inf, math.inf)))
        # A text is read like a value on the command line; None stands for a value that is missing.
        parser.add_argument(f"--{name}", nargs="?", const="true" if kind is bool else None, type=read)
    return parser


def _read(name: str, kind: type, least: float, most: float, text: str) -> Value:
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise FlagError(f"--{name}={text} does not parse; it takes true or false")
        return _BOOLEANS[text.lower()]
    try:
        value: float = kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise FlagError(f"--{name}={text} does not parse; it takes {wanted}") from None
    if not least <= value <= most:
        bounds = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise FlagError(f"--{name}={text} is out of range; it takes {bounds}")
    return value


def _check_spelling(argument: str) -> None:
    # TensorFlow Serving passes over all that it does not know; --auth_token_fil=... would then let everybody in.
    names = {field.name.replace("_", ""): field.name for field in dataclasses.fields(Options)}
    letters = argument.partition("=")[0].lower().replace("-", "").replace("_", "")
    for near in difflib.get_close_matches(letters, names, 1, _NEAR):
        raise FlagError(f"unknown argument: {argument}; did you mean --{names[near]}?")
