"""JSON text <-> values as RapidJSON reads and TensorFlow Serving writes them: NaN and Infinity included."""

import gc
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain

import numpy as np
import orjson
import rapidjson

from serving.errors import ServingError, invalid_argument

MOST_VALUES = 2**21
MOST_COMPRESSED_VALUES = 2**20
"""Of a body. Each becomes an object of Python, and nothing else runs meanwhile; a list or an object counts as two. A
body that came compressed may have fewer: a few kilobytes can become as many."""
_LARGE_BODY = 2**24
"""Bytes. Of a longer text orjson's own tree would take as much memory as the objects."""
_MANY_OBJECTS = 2**16
"""Bytes. A shorter text makes too few objects to be worth a pause of the garbage collector."""
LONGEST_ERROR = 16 * 1024
"""Characters of an error text that an answer holds."""

_pausing = threading.Lock()
_num_pausing = 0

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = " \t\n\r"
KEYS = (b'"instances"', b'"inputs"', b'"signature_name"')  # of the object in a body
_NUMBERS = rapidjson.NM_NATIVE | rapidjson.NM_NAN  # doubles beyond 64 bits, as in C++
_TEXT_BEHIND = "The document root must not be followed by other values."


class _FirstOfEach(rapidjson.Decoder):
    """Takes the first of several members of one name, as RapidJSON's FindMember does. Python takes the last."""

    def start_object(self) -> list[tuple[str, object]]:
        return []

    def end_object(self, members: list[tuple[str, object]]) -> dict[str, object]:
        return _first_of_each(members)


_rapidjson = rapidjson.Decoder(number_mode=_NUMBERS)
_rapidjson_first = _FirstOfEach(number_mode=_NUMBERS)
_indenting = json.JSONEncoder(indent=4, ensure_ascii=False)


def parse_object(body: bytes, was_compressed: bool = False) -> dict[str, object]:
    """Returns the object in a request body, and ignores any text behind it."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    _check_number_of_values(body, MOST_COMPRESSED_VALUES if was_compressed else MOST_VALUES)
    with _without_collections() if len(body) > _MANY_OBJECTS else nullcontext():
        document = _parse(body)
    if not isinstance(document, dict):
        raise document_error(document, "Is not object")
    return document


def value_text(value: object) -> str:
    """Returns a JSON value as error texts show it (JsonValueToString in util/json_tensor.cc), cut where they are."""
    if isinstance(value, float):
        return _decimal(value)
    pieces, length = [], 0
    for piece in _indenting.iterencode(value):
        pieces.append(piece)
        length += len(piece)
        if length > LONGEST_ERROR:  # an indented deep list has the square of its length
            break
    return "".join(pieces)


def document_error(document: object, complaint: str) -> ServingError:
    """Makes the error of a request whose JSON value is of another form."""
    return invalid_argument(f"JSON Value: {value_text(document)} {complaint}")


def type_name(value: object) -> str:
    """Returns RapidJSON's name for the type of a JSON value."""
    if isinstance(value, bool) or value is None:
        return {True: "True", False: "False", None: "Null"}[value]
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def write(value: object) -> bytes:
    """Returns the JSON text of nested lists, objects and arrays. A float32 has the fewest digits that identify it."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def write_indented(value: object) -> bytes:
    """Returns the JSON text of nested lists and objects, to be read by people as well."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def write_array(array: np.ndarray) -> bytes:
    """Returns the JSON text of an array of numbers or booleans."""
    text = write(np.ascontiguousarray(array) if array.ndim else array[()])
    if array.dtype.kind != "f":
        return text
    pieces = text.split(b"null")  # orjson's word for every number that is not finite
    others = [_not_finite(value) for value in array[~np.isfinite(array)].tolist()]
    return b"".join(chain.from_iterable(zip(pieces, [*others, b""], strict=True)))


def error_body(error: ServingError) -> bytes:
    """Returns the body of an answer that is an error."""
    # A text that quotes bytes which are not UTF-8 holds surrogates, which no answer can.
    message = error.message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if len(message) > LONGEST_ERROR:  # it may quote the whole request
        message = message[:LONGEST_ERROR] + "...TRUNCATED"
    return write({"error": message})


@contextmanager
def _without_collections() -> Iterator[None]:
    """Pauses the garbage collector: a parser makes lists by the million, and each collection would go through all."""
    global _num_pausing
    with _pausing:
        _num_pausing += 1
        gc.disable()
    try:
        yield
    finally:
        with _pausing:
            _num_pausing -= 1
            if not _num_pausing:
                gc.enable()


def _check_number_of_values(body: bytes, most: int) -> None:
    if len(body) > most and body.count(b",") + 2 * (body.count(b"[") + body.count(b"{")) > most:
        raise invalid_argument(
            f"JSON Parse error: There are more than {most} values, where a list or an object counts as two. "
            "Other formats take larger arrays."
        )


def _parse(body: bytes) -> object:
    if any(body.count(key) > 1 for key in KEYS):
        return _parse_as_rapidjson(body, _rapidjson_first)
    if len(body) > _LARGE_BODY:
        return _parse_as_rapidjson(body, _rapidjson)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # NaN, text behind the object, bytes that are not UTF-8, or no JSON at all
        return _parse_as_rapidjson(body, _rapidjson)


def _parse_as_rapidjson(body: bytes, decoder: rapidjson.Decoder) -> object:
    if body.startswith(_BYTE_ORDER_MARK):
        body = body.replace(_BYTE_ORDER_MARK, b"   ", 1)
    try:
        return decoder(body)
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: The document is nested too deeply.") from error
    except UnicodeDecodeError:
        return _parse_other_encoding(body, decoder)
    except rapidjson.JSONDecodeError as error:
        offset, _, message = str(error).removeprefix("Parse error at offset ").partition(": ")
        if message == _TEXT_BEHIND:
            return decoder(body[: int(offset)])
        text = message.replace("'", "")  # TensorFlow Serving's RapidJSON names brackets without quotes
        raise invalid_argument(f"JSON Parse error: {text} at offset: {offset}") from error


def _parse_other_encoding(body: bytes, decoder: rapidjson.Decoder) -> object:
    """Reads strings that are not UTF-8: RapidJSON passes their bytes on, where its binding for Python refuses them."""
    text = body.decode("utf-8", "surrogateescape")
    _parse_as_rapidjson(text.encode("utf-8", "replace"), decoder)  # raises its errors: each such byte is a "?" there
    try:
        return json.JSONDecoder(object_pairs_hook=_first_of_each).raw_decode(text.lstrip(_SPACE))[0]
    except ValueError as error:  # at a bare Inf
        raise invalid_argument("JSON Parse error: Invalid encoding in string.") from error


def _first_of_each(members: list[tuple[str, object]]) -> dict[str, object]:
    return {**dict(members), **dict(reversed(members))}


def _not_finite(value: float) -> bytes:
    return b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"


def _decimal(value: float) -> str:
    # WriteDecimal: six digits where they are exact, all seventeen where not, and never without a dot.
    if not math.isfinite(value):
        return _not_finite(value).decode()
    text = f"{value:g}"
    text = text if float(text) == value else f"{value:.17g}"
    return text if "." in text or "e" in text else text + ".0"
