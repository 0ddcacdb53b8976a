"""Versions on disk: each appears whole or not at all, they count up, none is overwritten, and old ones may go."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TextIO

from training.errors import InputError
from training.interrupts import removed_if_interrupted
from training.run.folder import take_lock

_UNFINISHED = ".unfinished-"  # a server takes only numbers for versions
_LARGEST_VERSION = 2**63 - 1  # that a server knows
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextlib.contextmanager
def unfinished_folder(base: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside the versions to work in, gone in the end, however that comes.

    What a killed process left is removed by the next one. A lock tells it from the folder of one that is at work.

    Args:
        base: The folder of the versions; made if it is not there.

    Raises:
        InputError: The base cannot be written.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(base)
        folder, lock = _make_locked(base)
    except OSError as error:
        raise InputError(f"{base} cannot be written: {error.strerror}; name another --output") from None
    with lock, removed_if_interrupted(folder):
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    """Moves a finished folder to the next version's place, in one step, once all of it is on the disk.

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
    """Removes all versions but so many of the newest.

    Each is moved out of a server's sight first, so that none ever sees half of one.

    Args:
        base: The folder of the versions.
        keep: How many stay, at least 1.
        unfinished: A folder beside them, from `unfinished_folder`.

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
    """What a server would take for a version, by its number ("007" is 7), and any file that has its name."""
    names = [path for path in base.iterdir() if path.name.isascii() and path.name.isdigit()]
    return {int(path.name): path for path in names if int(path.name) <= _LARGEST_VERSION}


def _make_locked(base: pathlib.Path) -> tuple[pathlib.Path, TextIO]:
    while True:  # until no other export takes the new folder for a leftover before it is locked
        folder = pathlib.Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=base))
        lock = _try_lock(folder)
        if lock:
            return folder, lock


def _try_lock(folder: pathlib.Path) -> TextIO | None:
    """The lock of a folder, unless a process at work has it or the folder is being removed."""
    path = folder / "lock"
    try:
        lock = take_lock(path)
    except (InputError, FileNotFoundError):
        return None
    if path.exists():
        return lock
    lock.close()
    return None


def _remove_leftovers(base: pathlib.Path) -> None:
    for folder in base.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):  # another user's
            lock = _try_lock(folder)
            if lock:
                with lock:
                    shutil.rmtree(folder)


def _flush(folder: pathlib.Path) -> None:
    """Sees to it that a power cut after the renaming finds every byte below the folder on the disk."""
    for parent, _, names in os.walk(folder):
        for path in (*(os.path.join(parent, name) for name in names), parent):
            _flush_entry(path)


def _flush_entry(path: str | pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
