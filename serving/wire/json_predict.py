"""TensorFlow Serving's JSON <-> arrays for Predict: row form (instances) and column form (inputs)."""

import enum
from collections.abc import Mapping

import numpy as np

from serving.errors import Code, ServingError, invalid_argument
from serving.wire.json_arrays import NumberArray, parse_number_array
from serving.wire.json_tensors import decode_tensor, encode_tensor, is_base64, largest_exact, row_values
from serving.wire.json_text import document_error, parse_object, value_text, write
from serving.wire.requests import PredictRequest
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo, explaining, find_signature

Row = object
"""One element of `instances`: the value of the only input, or an object with a value for each input."""

_BYTES_SUFFIX = "_bytes"
_CHUNK = 1024  # rows among which the first wrong one is looked for


class Layout(enum.Enum):
    """The layout of a request's tensors; the answer has the same one."""

    ROW = "instances"
    COLUMN = "inputs"


def parse_predict(body: bytes, was_compressed: bool = False) -> dict[str, object]:
    """Returns the object in a request body; a large array of numbers in it is a NumberArray."""
    return parse_number_array(body, was_compressed) or parse_object(body, was_compressed)


def decode_signature_name(document: Mapping[str, object]) -> str:
    """Returns the signature that a request names, or nothing."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise document_error(document, "not formatted correctly. 'signature_name' key must be a string value.")
    return name


def decode_predict(
    document: Mapping[str, object], name: str, signatures: Mapping[str, Signature]
) -> tuple[PredictRequest, Layout]:
    """Returns the arrays of a request, in the dtypes that the signature of this name declares, and their layout."""
    inputs = find_signature(signatures, name).inputs
    if not inputs:
        raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    with explaining(signatures[name or DEFAULT_SIGNATURE]):
        layout = _decode_layout(document)
        value = document[layout.value]
        if isinstance(value, NumberArray):
            (alias, info), *others = inputs.items()
            array = None if others else value.read(info.dtype, largest_exact(info.dtype))
            if array is not None:
                return PredictRequest(name, {alias: array}), layout
            value = value.lists()
        if layout is Layout.ROW and isinstance(value, list):
            return PredictRequest(name, _decode_rows(value, inputs)), layout
        return PredictRequest(name, _decode_columns(value, inputs)), layout


def encode_predict(outputs: Mapping[str, np.ndarray], layout: Layout) -> bytes:
    """Returns the answer to a request of this layout."""
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    if layout is Layout.ROW:
        return b'{"predictions":' + _encode_rows(outputs) + b"}"
    return b'{"outputs":' + _encode_columns(outputs) + b"}"


def _decode_layout(document: Mapping[str, object]) -> Layout:
    rows, columns = Layout.ROW.value, Layout.COLUMN.value
    if rows not in document:
        if columns not in document:
            raise invalid_argument(f"Missing '{columns}' or '{rows}' key")
        return Layout.COLUMN
    if columns in document:
        raise document_error(
            document, f"Not formatted correctly expecting only one of '{columns}' or '{rows}' keys to exist "
        )
    if isinstance(document[rows], NumberArray):
        return Layout.ROW
    if not isinstance(document[rows], list):
        raise document_error(document, f"Expecting '{rows}' to be an list/array")
    if not document[rows]:
        raise document_error(document, f"No values in '{rows}' array")
    return Layout.ROW


# Column form


def _decode_columns(value: object, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    if isinstance(value, dict) and not is_base64(value):
        for name in sorted(inputs):
            if name not in value:
                raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        return {name: decode_tensor(value[name], inputs[name].dtype) for name in sorted(inputs)}
    if len(inputs) > 1:
        raise invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    (name,) = inputs
    return {name: decode_tensor(value, inputs[name].dtype)}


def _encode_columns(outputs: Mapping[str, np.ndarray]) -> bytes:
    texts = {name: _encode_output(name, outputs[name]) for name in sorted(outputs)}
    return next(iter(texts.values())) if len(texts) == 1 else _object_text(texts)


# Row form (FillTensorMapFromInstancesList)


def _decode_rows(rows: list[Row], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    if len(inputs) > 1 and not isinstance(rows[0], dict):
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map"
        )
    _check_kinds(rows)
    try:
        return _decode_together(rows, inputs)
    except ServingError as error:
        _refuse_first_wrong(rows, inputs)
        raise error from None


def _is_named(row: Row) -> bool:
    return isinstance(row, dict) and not is_base64(row)


def _check_kinds(rows: list[Row]) -> None:
    """Raises ServingError unless all rows are objects with the names of inputs, or none is."""
    if dict not in set(map(type, rows)):
        return
    named = _is_named(rows[0])
    for item, row in enumerate(rows):
        if _is_named(row) != named:
            raise invalid_argument(
                f"Expecting object but got list at item {item} of input list"
                if named
                else f"Expecting value/list but got object at item {item} of input list"
            )


def _decode_together(rows: list[Row], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """Decodes all rows at once. Raises ServingError where one is wrong, without a word of which."""
    if not _is_named(rows[0]):
        name = next(iter(inputs))
        return {name: decode_tensor(rows, inputs[name].dtype)}
    if any(row.keys() != inputs.keys() for row in rows):  # type: ignore[attr-defined]
        raise invalid_argument("keys")
    columns = {name: [row[name] for row in rows] for name in inputs}  # type: ignore[index]
    return {name: decode_tensor(column, inputs[name].dtype) for name, column in columns.items()}


def _refuse_first_wrong(rows: list[Row], inputs: Mapping[str, TensorInfo]) -> None:
    """Raises the error for the first row that is wrong, or shaped differently from row 0, if there is one."""
    first: dict[str, np.ndarray] = {}
    _decode_row(0, rows[0], inputs, first)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        try:
            _decode_together([rows[0], *chunk], inputs)
        except ServingError:
            for item, row in enumerate(chunk, start):
                _decode_row(item, row, inputs, first)


def _decode_row(item: int, row: Row, inputs: Mapping[str, TensorInfo], first: dict[str, np.ndarray]) -> None:
    """Checks a row against the arrays of row 0, which it adds where there are none."""
    named = _is_named(row)
    for name, value in row.items() if named else [(next(iter(inputs)), row)]:  # type: ignore[attr-defined]
        try:
            _decode_element(name, value, inputs, first)
        except ServingError as error:
            key = f" key: {name}" if named else ""
            message = f"Failed to process element: {item}{key} of 'instances' list. Error: {error}"
            raise ServingError(Code.INVALID_ARGUMENT, message) from error
    if named and row.keys() != inputs.keys():  # type: ignore[attr-defined]
        raise invalid_argument(
            f"Failed to process element: {item} of 'instances' list. JSON object: {value_text(row)} "
            f"keys must be equal to: {','.join(sorted(inputs))}"
        )


def _decode_element(name: str, value: object, inputs: Mapping[str, TensorInfo], columns: dict[str, np.ndarray]) -> None:
    if name not in inputs:
        raise invalid_argument(f"JSON object: does not have named input: {name}")
    array = decode_tensor(value, inputs[name].dtype)
    first = columns.setdefault(name, array)
    if array.size != first.size:
        raise invalid_argument(f"Expecting tensor size: {first.size} but got: {array.size}")
    if array.shape != first.shape:
        wanted, given = (f"[{','.join(map(str, each.shape))}]" for each in (first, array))
        raise invalid_argument(f"Expecting shape {wanted} but got: {given}")


def _encode_rows(outputs: Mapping[str, np.ndarray]) -> bytes:
    batch_size = _batch_size(outputs)
    if len(outputs) == 1:
        return _encode_columns(outputs)
    names = sorted(outputs)
    values = [row_values(outputs[name], name.endswith(_BYTES_SUFFIX)) for name in names]
    finite = [column for column in values if column is not None]
    if len(finite) == len(names):
        return write([dict(zip(names, row, strict=True)) for row in zip(*finite, strict=True)])
    # An index with an ellipsis keeps a scalar an array, of whatever type.
    columns = [[_encode_output(name, outputs[name][row, ...]) for row in range(batch_size)] for name in names]
    rows = [_object_text(dict(zip(names, texts, strict=True))) for texts in zip(*columns, strict=True)]
    return b"[" + b",".join(rows) + b"]"


def _batch_size(outputs: Mapping[str, np.ndarray]) -> int:
    sizes: list[int] = []
    for name in sorted(outputs):
        if outputs[name].ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        sizes.append(len(outputs[name]))
        if sizes[-1] != sizes[0]:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {sizes[-1]} expecting: {sizes[0]}"
            )
    return sizes[0]


def _encode_output(name: str, array: np.ndarray) -> bytes:
    return encode_tensor(array, as_base64=name.endswith(_BYTES_SUFFIX))


def _object_text(texts: Mapping[str, bytes]) -> bytes:
    return b"{" + b",".join(write(name) + b":" + text for name, text in texts.items()) + b"}"
