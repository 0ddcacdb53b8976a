"""The versions of a model on disk (file_system_storage_path_source.cc)."""

import os
from pathlib import Path

from serving.errors import Code, ServingError
from serving.wire.requests import LARGEST_VERSION


def find_versions(base_path: Path) -> dict[int, Path]:
    """The child directories whose names are numbers ("00000123" is 123).

    Raises OSError if the directory can't be read, or went away while it was.
    """
    versions: dict[int, Path] = {}
    with os.scandir(base_path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = entry.name
            if name.isascii() and name.isdigit() and int(name) <= LARGEST_VERSION and entry.is_dir():
                versions.setdefault(int(name), base_path / name)
    base_path.stat()  # children of a directory that was renamed meanwhile seem to be none, which would unload all
    return versions


def check_links(directory: Path) -> None:
    """Raises ServingError if a version's directory is, or holds, a link that leads out of the model's base path.

    The base path itself may be a link, and links inside it are followed: ConfigMaps and git-sync use such links.
    """
    base_path = directory.parent
    real_base = os.path.realpath(base_path)
    waiting, seen = [str(directory)], set[str]()
    while waiting:
        path = waiting.pop()
        real = os.path.realpath(path)
        if os.path.commonpath([real, real_base]) != real_base:
            raise ServingError(
                Code.PERMISSION_DENIED,
                f"{os.path.relpath(path, base_path)} is a link that leads out of the model's base path; "
                "--allow_links_out_of_base_path lets it in",
            )
        if real in seen or not os.path.isdir(real):
            continue
        seen.add(real)
        with os.scandir(path) as entries:
            waiting += [entry.path for entry in entries if entry.is_symlink() or entry.is_dir()]


def size_of(directory: Path, *patterns: str) -> int:
    """The bytes of the files in a directory that match a pattern."""
    return sum(path.stat().st_size for pattern in patterns for path in directory.glob(pattern))
