"""The versions of a model on disk, and which of them the policy asks for."""

import os
from collections.abc import Iterable
from pathlib import Path

_LARGEST_VERSION = 2**63 - 1


def find_versions(base_path: Path) -> dict[int, Path]:
    """The child directories whose names are numbers ("00000123" is 123).

    Raises:
        OSError: The directory can't be read, or went away while it was.
    """
    versions: dict[int, Path] = {}
    with os.scandir(base_path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = entry.name
            if name.isascii() and name.isdigit() and int(name) <= _LARGEST_VERSION and entry.is_dir():
                versions.setdefault(int(name), base_path / name)
    base_path.stat()  # children of a directory that was renamed meanwhile seem to be none, which would unload all
    return versions


def latest(versions: Iterable[int], number: int = 1) -> list[int]:
    """The policy `latest`: so many of the highest versions."""
    return sorted(versions, reverse=True)[:number]


def holds_saved_model(directory: Path) -> bool:
    """Whether there is anything to load in a version's directory."""
    return (directory / "saved_model.pb").is_file() or (directory / "saved_model.pbtxt").is_file()
