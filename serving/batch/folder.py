"""The folder of a run: its lock, its manifest, and files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from serving.errors import Code, ServingError, invalid_argument

MANIFEST = "_manifest.json"
_LOCK = ".lock"
_UNFINISHED = ".unfinished-"
_IDENTITY = ("inputs", "model", "settings")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes the folder, keeps other processes from writing into it, and removes what killed ones left half written.

    A folder in which no run has begun goes again. Raises ServingError if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ServingError(
            Code.ABORTED, f"another process writes into {folder}: wait until it ends, or name another --output"
        ) from None
    try:
        _remove_unfinished(folder)
        yield
    finally:
        _remove_unfinished(folder)  # workers of a cluster cannot
        if not (folder / MANIFEST).exists():
            (folder / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # it holds something else
                folder.rmdir()
        lock.release()


def _remove_unfinished(folder: Path) -> None:
    for path in folder.glob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that gets its name once all of it is on the disk, and goes if the block fails."""
    unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def begin(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, or checks that the folder holds a run of the same inputs, model and settings.

    Raises ServingError if it holds another run.
    """
    path = folder / MANIFEST
    if not path.exists():
        if next(folder.glob("part-*"), None) is not None:
            raise invalid_argument(f"{folder} holds parts without a manifest: name another --output")
        write_manifest(folder, manifest)
        return
    try:
        found = json.loads(path.read_text())
        differing = [name for name in _IDENTITY if json.dumps(found[name]) != json.dumps(manifest[name])]
    except (ValueError, KeyError, TypeError):
        raise invalid_argument(f"{path} is no manifest of a batch run: name another --output") from None
    if differing:
        raise invalid_argument(f"{folder} holds a run of other {' and '.join(differing)}: name another --output")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest in place of one that is there."""
    with written(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode() + b"\n")
