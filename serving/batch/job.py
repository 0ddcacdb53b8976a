"""A job: all that its workers must know, and the identity of the model that it runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from serving.errors import invalid_argument
from serving.models.session import MODEL_FILES
from serving.repository.storage import find_versions

_LABELS = Path("assets", "labels.txt")  # of the export contract


@dataclass(frozen=True, kw_only=True)
class Job:
    """A model and the settings that decide what the parts hold."""

    root: Path
    """The folder that relative paths of inputs start from."""
    directory: Path
    version: int
    output: Path
    signature: str | None
    labels: tuple[str, ...]
    top: int
    column: str | None
    batch_size: int
    max_image_pixels: int


def find_version(export: Path, wanted: int | None) -> tuple[int, Path]:
    """The newest version below an export's folder, or the wanted one; the folder itself may be a version.

    Raises ServingError if there is none.
    """
    export = export.resolve()
    if (export / MODEL_FILES[0]).is_file() and export.name.isdecimal():
        versions = {int(export.name): export}
    else:
        versions = find_versions(export) if export.is_dir() else {}
    if not versions:
        raise invalid_argument(
            f"{export} is no export: give a folder with a SavedModel in a subfolder for each version (1, 2, ...), "
            "or one SavedModel"
        )
    version = max(versions) if wanted is None else wanted
    if version not in versions:
        raise invalid_argument(
            f"--version={wanted} is none of the versions in {export}: {', '.join(map(str, versions))}"
        )
    return version, versions[version]


def read_labels(directory: Path, given: Path | None) -> tuple[str, ...]:
    """The labels, one per line, of a given file or of the export. An export may have none."""
    path = given or directory / _LABELS
    if given is None and not path.is_file():
        return ()
    return tuple(path.read_text(encoding="utf-8").splitlines())


def hash_model(directory: Path) -> str:
    """The SHA-256 of the names and contents of the files that a model is loaded from."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in MODEL_FILES for path in directory.glob(pattern)):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(directory).as_posix()} {content}\n".encode())
    return digest.hexdigest()
