"""The columns of a part: labels, scores and outputs as Arrow arrays, with nulls in rows that have an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from serving.wire.signatures import DTYPES, Signature, TensorInfo

_BEFORE = [
    ("id", pa.string()),
    ("label", pa.string()),
    ("score", pa.float32()),
    ("labels", pa.list_(pa.string())),
    ("scores", pa.list_(pa.float32())),
]
_AFTER = [("version", pa.int64()), ("error", pa.string())]
OUTPUT = "output_{}"
"""The name of an output's column."""

Run: TypeAlias = tuple[Sequence[int], Mapping[str, np.ndarray]]
"""The rows that were run together, and what was computed for them, by the names of columns."""


def output_names(signature: Signature) -> list[str]:
    """The outputs that become columns: those that have a row per image, by their declared shapes."""
    return [name for name, info in sorted(signature.outputs.items()) if info.shape and "complex" not in info.dtype]


def make_schema(signature: Signature) -> pa.Schema:
    """The columns of a signature's parts. Dimensions that it does not declare make lists of any size."""
    outputs = [(OUTPUT.format(name), _output_type(signature.outputs[name])) for name in output_names(signature)]
    return pa.schema([*_BEFORE, *outputs, *_AFTER])


def make_table(schema: pa.Schema, given: Mapping[str, Sequence[object]], runs: Sequence[Run]) -> pa.Table:
    """Makes the table of a batch of columns that are given for all rows, and of those that the runs computed."""
    num_rows = len(given["id"])
    order = {row: position for position, row in enumerate(row for rows, _ in runs for row in rows)}
    positions = pa.array([order.get(row) for row in range(num_rows)], pa.int64())

    def column(field: pa.Field) -> pa.Array:
        if field.name in given:
            return pa.array(given[field.name], field.type)
        chunks = [_to_arrow(arrays[field.name], field.type) for _, arrays in runs if field.name in arrays]
        return pa.concat_arrays(chunks).take(positions) if chunks else pa.nulls(num_rows, field.type)

    return pa.table(list(map(column, schema)), schema)


def _output_type(info: TensorInfo) -> pa.DataType:
    kind = _value_type(info.dtype)
    for size in reversed((info.shape or ())[1:]):
        kind = pa.list_(kind, -1 if size is None else size)
    return kind


def _value_type(dtype: str) -> pa.DataType:
    if dtype == "string":
        return pa.binary()
    return pa.float32() if dtype == "bfloat16" else pa.from_numpy_dtype(DTYPES[dtype].numpy)


def _to_arrow(array: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Makes one value per row; dimensions become lists within lists."""
    if not pa.types.is_list(kind) and not pa.types.is_fixed_size_list(kind):
        return pa.array(array.tolist() if array.dtype == object else array.astype(kind.to_pandas_dtype()), kind)
    values = _to_arrow(array.reshape(-1, *array.shape[2:]), kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    offsets = pa.array(np.arange(len(array) + 1, dtype=np.int32) * array.shape[1])
    return pa.ListArray.from_arrays(offsets, values, type=kind)
