"""The row form of a predict request: `instances`, an element an example (FillTensorMapFromInstancesList)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.errors import Code, ServingError, invalid_argument
from serving.wire.json_numbers import Numbers
from serving.wire.json_tensors import decode_tensor, is_base64
from serving.wire.json_text import MOST_VALUES, value_text
from serving.wire.signatures import TensorInfo


def decode_rows(rows: list[Any] | Numbers, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """The arrays of `instances`: a list of plain values, or of objects with a value for each input."""
    if len(inputs) > 1 and (isinstance(rows, Numbers) or not isinstance(rows[0], dict)):
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map"
        )
    columns = _columns(rows, inputs)
    try:
        return {name: decode_tensor(columns[name], inputs[name].dtype) for name in columns}
    except ServingError as error:
        if not isinstance(rows, Numbers):
            _refuse_element(rows, inputs)
        elif math.prod(rows.shape) <= MOST_VALUES:
            _refuse_element(rows.lists(), inputs)
        raise error from None


def _is_named(element: Any) -> bool:
    return isinstance(element, dict) and not is_base64(element)


def _columns(rows: list[Any] | Numbers, inputs: Mapping[str, TensorInfo]) -> Mapping[str, list[Any] | Numbers]:
    """For each input the values of all rows."""
    if not isinstance(rows, Numbers):
        if _is_named(rows[0]):
            return _named_columns(rows, inputs)
        for item, row in enumerate(rows):
            if _is_named(row):
                raise invalid_argument(f"Expecting value/list but got object at item {item} of input list")
    return {next(iter(inputs)): rows}


def _named_columns(rows: list[Any], inputs: Mapping[str, TensorInfo]) -> dict[str, list[Any]]:
    for item, row in enumerate(rows):
        if not _is_named(row):
            raise invalid_argument(f"Expecting object but got list at item {item} of input list")
    if any(row.keys() != inputs.keys() for row in rows):
        _refuse_element(rows, inputs)
    return {name: [row[name] for row in rows] for name in inputs}


def _refuse_element(rows: list[Any], inputs: Mapping[str, TensorInfo]) -> None:
    """Raises the error for the first element that is wrong, which names it, as FillTensorMapFromInstancesList does."""
    columns: dict[str, list[np.ndarray]] = {}
    for item in (0, _first_wrong(rows, inputs)):
        _decode_row(item, rows[item], inputs, columns)


def _first_wrong(rows: list[Any], inputs: Mapping[str, TensorInfo]) -> int:
    """The position of the first element that is wrong, or not shaped as element 0, in rows that have one."""
    right, wrong = 0, len(rows)  # so many rows can be decoded together, and so many cannot
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if _can_be_decoded([rows[0], *rows[right:middle]], inputs):
            right = middle
        else:
            wrong = middle
    return right


def _can_be_decoded(rows: list[Any], inputs: Mapping[str, TensorInfo]) -> bool:
    named = _is_named(rows[0])
    if named and any(row.keys() != inputs.keys() for row in rows):
        return False
    try:
        for name in inputs:
            decode_tensor([row[name] for row in rows] if named else rows, inputs[name].dtype)
    except ServingError:
        return False
    return True


def _decode_row(item: int, row: Any, inputs: Mapping[str, TensorInfo], columns: dict[str, list[np.ndarray]]) -> None:
    named = _is_named(row)
    for name, value in row.items() if named else [(next(iter(inputs)), row)]:
        try:
            columns.setdefault(name, []).append(_decode_element(name, value, inputs, columns))
        except ServingError as error:
            key = f" key: {name}" if named else ""
            message = f"Failed to process element: {item}{key} of 'instances' list. Error: {error}"
            raise ServingError(Code.INVALID_ARGUMENT, message) from error
    if named and row.keys() != inputs.keys():
        raise invalid_argument(
            f"Failed to process element: {item} of 'instances' list. JSON object: {value_text(row)} "
            f"keys must be equal to: {','.join(sorted(inputs))}"
        )


def _decode_element(
    name: str, value: Any, inputs: Mapping[str, TensorInfo], columns: Mapping[str, Sequence[np.ndarray]]
) -> np.ndarray:
    if name not in inputs:
        raise invalid_argument(f"JSON object: does not have named input: {name}")
    array = decode_tensor(value, inputs[name].dtype)
    first = columns[name][0] if columns.get(name) else array
    if array.size != first.size:
        raise invalid_argument(f"Expecting tensor size: {first.size} but got: {array.size}")
    if array.shape != first.shape:
        raise invalid_argument(f"Expecting shape {_shape_text(first)} but got: {_shape_text(array)}")
    return array


def _shape_text(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"
