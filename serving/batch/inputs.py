"""The inputs that a command line names -> parts: consecutive rows, each part for one file of output."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from serving.batch import tables
from serving.errors import invalid_argument

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
IMAGES, TFRECORD, PARQUET = "images", "tfrecord", "parquet"


@dataclass(frozen=True)
class Part:
    """Consecutive rows of the inputs: image files, or the rows of one table from `start` on."""

    name: str
    kind: str
    paths: Sequence[str]
    start: int
    num_rows: int

    def to_json(self) -> str:
        """Returns the part as text, which any engine can pass to its workers."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the part that `to_json` wrote."""
        return cls(**json.loads(text))


def find_files(arguments: Iterable[str], output: Path) -> dict[str, int | None]:
    """The files that arguments name, each once and in order, with their sizes; None for one that is not there.

    Raises:
        ServingError: An argument names no file.
        OSError: A folder or a list cannot be read.
    """
    files: dict[str, int | None] = {}
    for argument in arguments:
        found = list(_named_by(argument, output))
        if not found:
            raise invalid_argument(
                f"{argument} names no images ({', '.join(IMAGE_SUFFIXES)}), TFRecords or Parquet files: "
                "give folders, files, globs, or @FILE with one path per line"
            )
        files.update((path, _size(path)) for path in found if path not in files)
    return files


def make_parts(files: Iterable[str], part_rows: int, column: str | None) -> list[Part]:
    """Cuts the image files, and then each table, into parts of `part_rows` rows.

    Raises ServingError if a table cannot be read, or has no such column of bytes.
    """
    by_kind: Mapping[str, list[str]] = {IMAGES: [], TFRECORD: [], PARQUET: []}
    for path in files:
        by_kind[_kind_of(path)].append(path)
    images = by_kind[IMAGES]
    ranges = [(IMAGES, images[start : start + part_rows], 0) for start in range(0, len(images), part_rows)]
    sizes = [len(paths) for _, paths, _ in ranges]
    tables_of = [(TFRECORD, path, tables.count_records(path)) for path in by_kind[TFRECORD]]
    tables_of += [(PARQUET, path, tables.count_rows(path, column)) for path in by_kind[PARQUET]]
    for kind, path, num_rows in tables_of:
        for start in range(0, num_rows, part_rows):
            ranges.append((kind, [path], start))
            sizes.append(min(part_rows, num_rows - start))
    return [
        Part(f"part-{number:05}.parquet", *each, size)
        for number, (each, size) in enumerate(zip(ranges, sizes, strict=True))
    ]


def _named_by(argument: str, output: Path) -> Iterator[str]:
    if argument.startswith("@"):
        text = Path(argument[1:]).read_text(encoding="utf-8", errors="surrogateescape")
        yield from filter(None, text.splitlines())
        return
    paths = [argument] if os.path.lexists(argument) else sorted(glob.glob(argument, recursive=True))
    for path in paths:
        if os.path.isdir(path):
            yield from _walk(path, output.resolve())
        else:
            yield path


def _walk(folder: str, output: Path) -> Iterator[str]:
    if Path(folder).resolve() == output:
        raise invalid_argument(f"{folder} is both input and --output: name another --output")
    for root, folders, names in os.walk(folder, onerror=_fail):
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if Path(root, name).resolve() != output]
        yield from (os.path.join(root, name) for name in sorted(names) if _is_input(name))


def _fail(error: OSError) -> None:
    raise error


def _is_input(name: str) -> bool:
    return not name.startswith(".") and (name.lower().endswith(IMAGE_SUFFIXES) or _kind_of(name) != IMAGES)


def _kind_of(path: str) -> str:
    name = os.path.basename(path).lower()
    if name.endswith(IMAGE_SUFFIXES):
        return IMAGES
    if name.endswith(".parquet"):
        return PARQUET
    return TFRECORD if ".tfrecord" in name else IMAGES  # cats.tfrecord-00000-of-00004


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:  # its row will say why
        return None
