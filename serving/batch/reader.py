"""The rows of a part, in batches of columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

from serving.batch import tables
from serving.batch.inputs import IMAGES, TFRECORD, Part
from serving.batch.job import Job
from serving.batch.tables import Value

T = TypeVar("T")

Columns: TypeAlias = dict[str, list[str] | list[bytes | None] | list[str | None]]
"""`id`, `image` or `example` (a serialized tf.Example), and `error`, which says why a row has no bytes."""

_READERS = 8  # files that are opened at once, for file systems that answer late


def read(part: Part, job: Job) -> Iterator[Columns]:
    """Reads a part in batches. A file or row that cannot be read is a row with an error."""
    if part.kind == IMAGES:
        yield from _read_images(part.paths, job)
        return
    path, start = str(job.root / part.paths[0]), part.start
    if part.kind == TFRECORD:
        name, values = "example", tables.read_records(path, start, part.num_rows)
    else:
        name, values = "image", tables.read_rows(path, start, part.num_rows, job.column)
    for batch in _batched(values, job.batch_size):
        yield _columns(name, [f"{part.paths[0]}#{start + number}" for number in range(len(batch))], batch)
        start += len(batch)


def _read_images(paths: Sequence[str], job: Job) -> Iterator[Columns]:
    with ThreadPoolExecutor(_READERS) as threads:
        for batch in _batched(iter(paths), job.batch_size):
            yield _columns("image", batch, list(threads.map(lambda path: _read_file(job.root / path), batch)))


def _read_file(path: Path) -> Value:
    try:
        return path.read_bytes(), None
    except OSError as error:
        return None, os.strerror(error.errno or 0)


def _columns(name: str, ids: Iterable[str], values: Sequence[Value]) -> Columns:
    return {
        "id": [_as_text(each) for each in ids],
        name: [value for value, _ in values],
        "error": [error for _, error in values],
    }


def _as_text(path: str) -> str:
    """Parquet holds UTF-8 alone; the names of files may be anything."""
    return os.fsencode(path).decode("utf-8", "replace")


def _batched(values: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(values, size)):
        yield batch
