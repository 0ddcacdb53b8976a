"""The versions of a model on disk (file_system_storage_path_source.cc)."""

import os
import time
from pathlib import Path

from serving.errors import Code, ServingError
from serving.wire.requests import LARGEST_VERSION

_QUIET_SECONDS = 2.0
_UNNUMBERED_VERSION = 1


def find_versions(base_path: Path) -> dict[int, Path]:
    """The child directories whose names are numbers ("00000123" is 123), or else the base path itself as version 1.

    KServe's storage initializer leaves a SavedModel right in the base path, where TensorFlow Serving finds no version.
    Raises OSError if the directory can't be read, or went away while it was.
    """
    versions: dict[int, Path] = {}
    with os.scandir(base_path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = entry.name
            if name.isascii() and name.isdigit() and int(name) <= LARGEST_VERSION and entry.is_dir():
                versions.setdefault(int(name), base_path / name)
    if not versions and (base_path / "saved_model.pb").is_file():
        versions[_UNNUMBERED_VERSION] = base_path
    base_path.stat()  # children of a directory that was renamed meanwhile seem to be none, which would unload all
    return versions


def base_path_of(directory: Path) -> Path:
    """The base path of a version's directory: its parent, or itself where it has no number."""
    return directory.parent if directory.name.isdigit() else directory


class Quiet:
    """Remembers when directories last changed, to detect whether somebody is still writing into them."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[float, float]] = {}

    def is_quiet(self, directory: Path) -> bool:
        """Whether no file in the directory has changed for two seconds. Raises OSError if it can't be read."""
        files = (os.path.join(folder, name) for folder, _, names in os.walk(directory) for name in names)
        newest = max((os.lstat(path).st_ctime for path in files), default=0.0)
        if self._seen.get(directory, (None,))[0] != newest:
            self._seen[directory] = newest, time.monotonic()
        # The clock of a remote file system may be ahead of this machine's.
        quiet_for = max(time.time() - newest, time.monotonic() - self._seen[directory][1])
        return quiet_for >= _QUIET_SECONDS


def check_links(directory: Path) -> None:
    """Raises ServingError if a version's directory is, or holds, a link that leads out of the model's base path.

    The base path itself may be a link, and links inside it are followed: ConfigMaps and git-sync use such links.
    """
    base_path = base_path_of(directory)
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
