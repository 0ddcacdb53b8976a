"""Publishes versions in a folder: each appears whole or not at all, numbers rise, and old versions may be removed."""

import contextlib
import errno
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from filelock import FileLock

from training.errors import InputError
from training.interrupts import removed_if_interrupted

_UNFINISHED = ".unfinished-"  # a server takes only numbers for versions
_LARGEST_VERSION = 2**63 - 1  # that a server knows
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextlib.contextmanager
def unfinished_folder(base: pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes a temporary folder next to the versions in `base`, and removes it when its block ends.

    A lock beside the folder shows that its process is at work: what killed processes left is removed first.

    Raises:
        InputError: The base cannot be written.
    """
    folder = base / f"{_UNFINISHED}{uuid.uuid4().hex}"
    lock = folder.with_suffix(".lock")
    with contextlib.ExitStack() as stack:
        try:
            base.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(base)
            stack.enter_context(FileLock(lock))
            folder.mkdir()
        except OSError as error:
            raise InputError(f"{base} cannot be written: {error.strerror}; name another --output") from None
        with removed_if_interrupted(lock), removed_if_interrupted(folder):
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink()


def publish(folder: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    """Renames a finished folder to the next version, once all of it is on the disk.

    Returns:
        `<base>/<version>`, one more than the largest that was there.

    Raises:
        InputError: There is a version so large that no server would take a larger one.
        OSError: The disk is full.
    """
    _flush(folder)
    while True:
        version = 1 + max(find_versions(base), default=0)
        if version > _LARGEST_VERSION:
            raise InputError(f"{base}/{version - 1} is the largest version that a server takes: name another --output")
        target = base / str(version)
        try:
            os.rename(folder, target)
        except OSError as error:
            if error.errno not in _TAKEN:  # another export may have been a moment faster
                raise
        else:
            _flush_entry(base)
            return target


def remove_old(base: pathlib.Path, keep: int, unfinished: pathlib.Path) -> None:
    """Removes all but the `keep` newest versions; `unfinished_folder` takes each from a server's sight in one step.

    Raises:
        OSError: A version cannot be moved.
    """
    versions = find_versions(base)
    for version in sorted(versions)[:-keep]:
        moved = unfinished / f"old-{version}"
        with contextlib.suppress(FileNotFoundError):  # another export may have been a moment faster
            os.rename(versions[version], moved)
        shutil.rmtree(moved, ignore_errors=True)


def find_versions(base: pathlib.Path) -> dict[int, pathlib.Path]:
    """Folders that a server would take for a version, by number ("007" is 7), and files of such names."""
    names = [path for path in base.iterdir() if path.name.isascii() and path.name.isdigit()]
    return {int(path.name): path for path in names if int(path.name) <= _LARGEST_VERSION}


def _remove_leftovers(base: pathlib.Path) -> None:
    for lock in base.glob(f"{_UNFINISHED}*.lock"):
        with contextlib.suppress(OSError), FileLock(lock, timeout=0):  # its process is at work, or it is another user's
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()


def _flush(folder: pathlib.Path) -> None:
    """Writes every byte below the folder to the disk, so that a power cut after the renaming loses none."""
    for parent, _, names in os.walk(folder):
        for path in (*(os.path.join(parent, name) for name in names), parent):
            _flush_entry(path)


def _flush_entry(path: str | pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
