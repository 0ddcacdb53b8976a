"""The versions of a model on disk, and which of them its policy asks for (file_system_storage_path_source.cc)."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_LARGEST_VERSION = 2**63 - 1


class Policy(Protocol):
    """Says which of the versions on disk are to be served."""

    def select(self, versions: Collection[int]) -> list[int]:
        """The versions to serve, of those there are."""


@dataclass(frozen=True)
class Latest:
    """So many of the highest versions, but at least one."""

    num_versions: int = 1

    def select(self, versions: Collection[int]) -> list[int]:
        """The versions to serve, of those there are."""
        return sorted(versions, reverse=True)[: max(1, self.num_versions)]


@dataclass(frozen=True)
class All:
    """Every version."""

    def select(self, versions: Collection[int]) -> list[int]:
        """The versions to serve, of those there are."""
        return sorted(versions, reverse=True)


@dataclass(frozen=True)
class Specific:
    """The versions of these numbers."""

    versions: frozenset[int]

    def select(self, versions: Collection[int]) -> list[int]:
        """The versions to serve, of those there are."""
        return sorted(self.versions.intersection(versions), reverse=True)


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
