"""Fills the pages of the site that are made of the code: options, config fields, and files that lie elsewhere."""

import dataclasses
import functools
import io
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from importlib import import_module
from typing import Any

from tabulate import tabulate

from serving.engines.table import Kind
from serving.engines.tensorflow_model_server import TABLE
from serving.options import IGNORED, Options
from training import commands
from training.config import Config

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = {
    "ask": "serving.client.__main__",
    "batch": "serving.batch.command",
    "parity": "serving.parity.command",
}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replaces `<!-- made: NAME -->` by what NAME makes, and links that lead out of the site by paths."""
    markdown = re.sub(r"<!-- made: (\w+) -->", lambda found: MAKERS[found[1]](), markdown)
    markdown = re.sub(r"<!-- included: (\S+) -->", lambda found: included(found[1]), markdown)
    link = functools.partial(_link, pathlib.Path(page.file.src_uri).parent)
    return re.sub(r"\[([^]]+)\]\(([^):#]+)#?([^):]*)\)", link, markdown)


def included(path: str) -> str:
    """The text of a file of this repository, with headings a level lower and links that hold in docs/."""
    text = (ROOT / path).read_text().replace("](docs/", "](")
    return re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)


def _link(folder: pathlib.Path, found: re.Match[str]) -> str:
    """A link, or the text and the path in the repository of what is no page. A test's name shows under the pointer."""
    target = os.path.normpath(folder / found[2])
    if not target.startswith(".."):
        return found[0]
    path = target.removeprefix("../")
    if found[3].startswith("test_"):
        return f'<abbr title="{path}::{found[3]}">{found[1]}</abbr>'
    return f"`{path}`" if found[1] == path else f"{found[1]} (`{path}`)"


def _help(name: str) -> str:
    """The output of `keras-prelu NAME --help`, without the fields of a config."""
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        if name in PROGRAMS:
            import_module(PROGRAMS[name])._parse(["--help"])
        else:
            import_module("training.__main__").main([name, "--help"])
    text = re.sub(r"[╭╮╰╯│─]+", "", printed.getvalue())
    text = "\n".join(line.rstrip() for line in text.partition("\n Data \n")[0].splitlines())
    return f"## {name}\n\n```text\n{text.strip()}\n```\n"


def make_commands() -> str:
    """A section for each command but `serve`, whose flags have tables of their own."""
    sys.argv = [commands.NAME]  # by which name the help speaks of itself
    os.environ["COLUMNS"] = "86"
    trainer = ("configs", "data", "fit", "evaluate", "predict", "report", "export", "reproduce", "env")
    return "\n".join(_help(name) for name in (*trainer, *PROGRAMS))


def _flags(*, is_theirs: bool) -> str:
    rows = [
        (f"`--{field.name}`", f"`{_shown(field.default)}`", field.metadata["meaning"])
        for field in dataclasses.fields(Options)
        if (TABLE[field.name] in (Kind.ALWAYS, Kind.OWN)) == is_theirs
    ]
    return _table(rows, ("flag", "default", ""))


def make_ignored_flags() -> str:
    """The names of the flags that have no effect."""
    return ", ".join(f"`--{name}`" for name in IGNORED)


def make_config_fields() -> str:
    """A table for each group of fields, with types, defaults and bounds."""
    groups = dict.fromkeys(field.metadata["group"] for field in dataclasses.fields(Config))
    return "\n\n".join(f"## {group.capitalize()}\n\n{_table(_fields(group), HEADINGS)}" for group in groups)


HEADINGS = ("field", "default", "must be", "")


def _fields(group: str) -> Iterator[tuple[str, ...]]:
    for field in dataclasses.fields(Config):
        if field.metadata["group"] == group:
            bounds = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in field.metadata["bounds"].items())
            yield f"`{field.name}`", f"`{_shown(field.default)}`", bounds, field.metadata["doc"]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or '""'
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


def _table(rows: Any, headers: tuple[str, ...]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("*", "\\*") for cell in row] for row in rows]
    return tabulate(escaped, headers, tablefmt="pipe", disable_numparse=True)


MAKERS: dict[str, Callable[[], str]] = {
    "commands": make_commands,
    "flags_of_tensorflow_serving": functools.partial(_flags, is_theirs=True),
    "own_flags": functools.partial(_flags, is_theirs=False),
    "ignored_flags": make_ignored_flags,
    "config_fields": make_config_fields,
}
