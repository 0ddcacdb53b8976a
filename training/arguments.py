"""Options of the command line: one for each field of a config, and lists with commas."""

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from cyclopts import CycloptsError, Group, Parameter, Token, UnknownOptionError

from training.commands import program
from training.config import EARLIER_NAMES, Config, field_types


def _split(kind: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:
    text, element = tokens[-1].value, typing.get_args(kind)[0]
    try:
        return tuple(element(part) for part in text.split(",") if part)
    except ValueError:
        raise ValueError(f"{text!r}, but must be numbers with commas, as 32,64") from None


def _joined(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


_COMMAS = Parameter(converter=_split, n_tokens=1, accepts_keys=False, metavar="A,B,...", show_default=_joined)
Numbers = Annotated[tuple[int, ...], _COMMAS]
Names = Annotated[tuple[str, ...], _COMMAS]


def with_fields(command: Callable[..., int], config: Config) -> Callable[..., int]:
    """Gives a command that takes `**fields` an option for each field of a config, with the config's values as defaults.

    The command gets those fields that were given.
    """

    @functools.wraps(command)
    def wrapped(*arguments: Any, **keywords: Any) -> int:
        return command(*arguments, **keywords)

    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    fields = dataclasses.fields(config)
    groups = {
        name: Group(name.capitalize(), sort_key=index)
        for index, name in enumerate(dict.fromkeys(field.metadata["group"] for field in fields))
    }
    options = [_option(field, getattr(config, field.name), groups[field.metadata["group"]]) for field in fields]
    vars(wrapped)["__signature__"] = signature.replace(parameters=own + options)
    return wrapped


def _option(field: "dataclasses.Field[Any]", default: Any, group: Group) -> inspect.Parameter:
    kind = field_types()[field.name]
    # a choice that is empty stands for none, and the doc says so
    listed = typing.get_origin(kind) is Literal and "" not in typing.get_args(kind)
    parameter = Parameter(help=field.metadata["doc"], group=group, show_choices=listed)
    if typing.get_origin(kind) is tuple:
        parameter = Parameter.combine(_COMMAS, parameter)
    typed: Any = Annotated
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=typed[kind, parameter]
    )


def with_values(argv: Sequence[str]) -> list[str]:
    """Joins `--flip true` to `--flip=true`; without a value, `--flip` stands alone."""
    flags = {f"--{name}" for name, kind in field_types().items() if kind is bool}
    words: list[str] = []
    for word in argv:
        if words and words[-1] in flags and re.fullmatch("true|false|0|1", word.lower()):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def as_options(fields: dict[str, Any]) -> list[str]:
    """The words of a command line that sets these fields."""
    return [f"--{name}={_joined(value) if isinstance(value, tuple) else value}" for name, value in fields.items()]


def one_line(error: CycloptsError) -> str:
    """Says in one line what is wrong with a command line."""
    text = " ".join(str(error).split())
    if isinstance(error, UnknownOptionError) and error.token.keyword:
        now = EARLIER_NAMES.get(error.token.keyword.lstrip("-"))
        text = f"Unknown option: {error.token.keyword}. It is --{now} now." if now else text
    command = " ".join([program(), *(error.command_chain or ())])
    return f"{text.rstrip('.')}; `{command} --help` lists what there is"
