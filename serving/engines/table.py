"""The fate of each option under an engine that does not follow all of them."""

import enum
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from serving.errors import invalid_argument
from serving.flags import CommandLine, Value

Kind = enum.Enum("Kind", "ALWAYS OWN WITHOUT_EFFECT ENGINE")
"""Options that the engine's program follows, of which some are always passed on as it has other defaults; those that
have no effect there; and those that the engine follows itself."""


@dataclass(frozen=True)
class Protects:
    """An option that protects unless it has this value, and the behaviour of the program without it."""

    unless: Value
    instead: str


Table = Mapping[str, Kind | Protects]


def check(table: Table, command_line: CommandLine, program: str) -> None:
    """Prints the given options that have no effect in a program. Raises ServingError for one that protects."""
    for name in (name for name in table if name in command_line.given):
        kind, value = table[name], getattr(command_line.options, name)
        if isinstance(kind, Protects) and value != kind.unless:
            shown = str(value).lower() if isinstance(value, bool) else value
            reason = f"{program} {kind.instead}; leave the flag out, or take --engine=embedded"
            raise invalid_argument(f"--{name}={shown}: {reason}")
        if kind is Kind.WITHOUT_EFFECT:
            print(f"--{name} has no effect in {program}", file=sys.stderr)
