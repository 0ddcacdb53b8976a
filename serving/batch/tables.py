"""Tables of images: TFRecords of tf.Examples, and Parquet files with a column of bytes."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from serving.errors import invalid_argument

Value = tuple[bytes | None, str | None]
"""The bytes of a row, or the reason why it has none."""

_HEADER = struct.Struct("<Q4x")  # of a TFRecord: its length, and a checksum of it
_CHECKSUM = 4  # bytes, after its data
_MOST_ROWS = 64  # of Parquet that are decoded at once


def count_records(path: str) -> int:
    """The number of TFRecords in a file, by their headers. Raises ServingError if it holds something else."""
    opened: Callable[..., Any] = gzip.open if path.endswith(".gz") else open
    count = 0
    try:
        with opened(path, "rb") as file:
            while header := file.read(_HEADER.size):
                file.seek(_HEADER.unpack(header)[0] + _CHECKSUM - 1, os.SEEK_CUR)
                if not file.read(1):
                    raise EOFError
                count += 1
    except (struct.error, EOFError, OverflowError, gzip.BadGzipFile) as error:
        raise invalid_argument(f"{path} holds no whole TFRecord after the first {count}: leave it out") from error
    return count


def read_records(path: str, start: int, num_rows: int) -> Iterator[Value]:
    """The TFRecords of a file from `start` on. Those behind a damaged one cannot be read."""
    dataset = tf.data.TFRecordDataset(path, "GZIP" if path.endswith(".gz") else "")
    return _to_the_end(dataset.skip(start).take(num_rows).as_numpy_iterator(), num_rows)


def count_rows(path: str, column: str | None) -> int:
    """The number of rows of a Parquet file. Raises ServingError if it has no column of bytes, or none of this name."""
    try:
        with pq.ParquetFile(path) as file:
            _column_of_bytes(file.schema_arrow, path, column)
            return int(file.metadata.num_rows)
    except pa.ArrowException as error:
        raise invalid_argument(f"{path} is no Parquet file, or a damaged one: leave it out") from error


def read_rows(path: str, start: int, num_rows: int, column: str | None) -> Iterator[Value]:
    """The bytes in the rows of a Parquet file from `start` on."""
    return _to_the_end(_read_rows(path, start, num_rows, column), num_rows)


def _read_rows(path: str, start: int, num_rows: int, column: str | None) -> Iterator[bytes | None]:
    with pq.ParquetFile(path, pre_buffer=False) as file:  # a buffer would hold whole row groups
        name = _column_of_bytes(file.schema_arrow, path, column)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        first = 0
        while start >= sizes[first]:
            start -= sizes[first]
            first += 1
        batches = file.iter_batches(_MOST_ROWS, range(first, len(sizes)), [name], use_threads=False)
        yield from islice(chain.from_iterable(map(_bytes_in, batches)), start, start + num_rows)


def _column_of_bytes(schema: pa.Schema, path: str, column: str | None) -> str:
    fitting = {name: within for name, within in map(_place_of_bytes, schema) if within}
    names = [name for name in fitting if column in (None, name)]
    if len(names) == 1:
        return fitting[names[0]]
    asked = f"no column {column} of bytes" if column else f"{len(names) or 'no'} columns of bytes"
    raise invalid_argument(f"{path} has {asked}: --column must name one of {', '.join(fitting) or '(it has none)'}")


def _place_of_bytes(field: pa.Field) -> tuple[str, str]:
    if pa.types.is_struct(field.type):  # an image of Hugging Face: bytes and path
        inner = [each.name for each in field.type if each.name == "bytes" and _is_bytes(each.type)]
        return field.name, f"{field.name}.bytes" if inner else ""
    return field.name, field.name if _is_bytes(field.type) else ""


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _bytes_in(batch: pa.RecordBatch) -> list[bytes | None]:
    column = batch.column(0)
    values = column.flatten()[0] if pa.types.is_struct(column.type) else column  # null, too, where the struct is
    return [None if value is None else bytes(value) for value in values.to_pylist()]


def _to_the_end(values: Iterator[Any], num_rows: int) -> Iterator[Value]:
    """As many rows as there should be: where reading fails, the rest has the reason."""
    count, reason = 0, "the file ends before this row"
    try:
        for value in values:
            count += 1
            yield (value, None) if value is not None else (None, "the row is null")
    except (OSError, pa.ArrowException, tf.errors.OpError) as error:
        reason = f"row {count} of the part and those after it cannot be read: {_first_line(error)}"
    yield from repeat((None, reason), num_rows - count)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rpartition("}} ")[2]
