"""The command `keras-prelu`: the trainer's commands, and by name those of the server and its client.

It imports neither before it knows which of them runs, so that a machine that only asks needs no trainer.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

NAME = "keras-prelu"
SERVING: Mapping[str, tuple[str, Sequence[str], str]] = {
    "serve": ("serving.__main__", (), "Serve exported models, with the flags of TensorFlow Serving."),
    "ask": ("serving.client.__main__", (), "Classify images with a served model."),
    "batch": ("serving.__main__", ("batch",), "Classify folders and tables with an export, into Parquet files."),
    "parity": ("serving.__main__", ("parity",), "Compare the answers of two servers."),
}
"""The module of each command, the words before its own, and what it does."""


def main() -> None:
    """Runs the command that the first argument names, and ends the process with its exit status."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in SERVING:
        module, first, _ = SERVING[name]
        words = _with_flags(words) if name == "serve" else words
        sys.exit(import_module(module).main([*first, *words]))
    import_module("training.__main__").command()


def _with_flags(words: Sequence[str]) -> list[str]:
    """The flags of `serve EXPORT ...`: both ports open, and a model that has the name of its folder, or of its run."""
    if not words or words[0].startswith("-"):
        return list(words)
    path = pathlib.Path(words[0]).absolute()
    name = path.parent.name if path.name == "export" else path.name
    return [f"--model_base_path={path}", f"--model_name={name}", "--port=8500", "--rest_api_port=8501", *words[1:]]


def program() -> str:
    """The name that this process was started by."""
    return NAME if pathlib.Path(sys.argv[0]).name == NAME else "python -m training"
