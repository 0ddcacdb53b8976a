"""The help of the server: TensorFlow Serving's flags, and those of this server's own, each with default and meaning."""

import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import Any

from serving.engines.table import Kind
from serving.engines.tensorflow_model_server import TABLE
from serving.options import IGNORED, Options

_THEIRS = (Kind.ALWAYS, Kind.OWN)
_BOLD, _PLAIN = "\033[1m", "\033[0m"


def usage() -> str:
    """The text of `--help`; the names of flags are bold on a terminal, unless NO_COLOR is set."""
    fields = dataclasses.fields(Options)
    is_bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    lines = [
        "usage: python -m serving --model_name=NAME --model_base_path=DIRECTORY [flags]",
        "       keras-prelu serve DIRECTORY [flags]",
        *("", "TensorFlow Serving's flags"),
        *(line for field in fields if TABLE[field.name] in _THEIRS for line in _described(field, is_bold)),
        *("", "Flags of this server's own"),
        *(line for field in fields if TABLE[field.name] not in _THEIRS for line in _described(field, is_bold)),
        *("  --version", "      Print the version and exit.", "  --help", "      Print this and exit."),
        *("", "Accepted without effect: " + ", ".join(f"--{name}" for name in IGNORED)),
    ]
    return "\n".join(lines)


def _described(field: "dataclasses.Field[Any]", is_bold: bool) -> Iterator[str]:
    shown = str(field.default).lower() if isinstance(field.default, bool) else repr(field.default)
    flag = f"{_BOLD}--{field.name}{_PLAIN}" if is_bold else f"--{field.name}"
    yield f"  {flag}={shown}"
    yield f"      {field.metadata['meaning']}"
