"""JSON text <-> values as RapidJSON reads and TensorFlow Serving writes them: NaN and Infinity included."""

import json
import math
import re
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import orjson

from serving.errors import ServingError, invalid_argument
from serving.wire.garbage import without_collections
from serving.wire.json_numbers import Numbers

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STRING = r'"(?:[^"\\]++|\\.)*+["\\]?'  # or one that never ends: else each of its quotes would be tried as a start
_STRING_OR_INF = re.compile(_STRING + r"|\bInf\b", re.DOTALL)
_STRING_OR_BRACKET = re.compile(_STRING + r"|[\[\]{}]", re.DOTALL)
MOST_VALUES = 2**21
"""Of a body, where it is no array of numbers: each becomes an object of Python, and meanwhile nothing else runs."""
_LARGE_BODY = 2**16  # bytes
LONGEST_ERROR = 16 * 1024
"""Characters of an error that are told."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_OPENING = (b",", b"[", b"{")  # one of them stands before every value
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1

_KEYS = (b'"instances"', b'"inputs"', b'"signature_name"')  # which mean something at the top
_TRAILING_COMMA = "Illegal trailing comma before end of "  # Python 3.13 and later
# What Python's parser says, in RapidJSON's words (error/en.h).
_MESSAGES = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    _TRAILING_COMMA + "object": "Missing a name for object member.",
    _TRAILING_COMMA + "array": "Invalid value.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid control character at": "Invalid encoding in string.",
}
_MISSING_COMMA = {
    "{": "Missing a comma or } after an object member.",
    "[": "Missing a comma or ] after an array element.",
}


def _first_elements(value: Any) -> list[Any]:
    assert isinstance(value, Numbers)
    return list(islice(value, LONGEST_ERROR))


_INDENTING = json.JSONEncoder(indent=4, ensure_ascii=False, default=_first_elements)


def parse_object(body: bytes) -> dict[str, Any]:
    """The object that a request body holds. What follows it is ignored."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    if len(body) > MOST_VALUES and sum(map(body.count, _OPENING)) > MOST_VALUES:
        raise invalid_argument(
            f"JSON Parse error: There are more than {MOST_VALUES} values. Arrays of numbers may have more where all "
            "lists of a level are as long as each other; other formats take other arrays."
        )
    with without_collections() if len(body) > _LARGE_BODY else nullcontext():
        document = _parse(body)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {value_text(document)} Is not object")
    return document


def _parse(body: bytes) -> Any:
    try:
        return _parse_slowly(body) if any(body.count(key) > 1 for key in _KEYS) else orjson.loads(body)
    except orjson.JSONDecodeError:
        # NaN, text after the object, bytes that are not UTF-8: Python's parser bends where orjson does not. And it can
        # be told to take the first of several members of one name, as RapidJSON does.
        return _parse_slowly(body)


def value_text(value: Any) -> str:
    """A JSON value as error texts show it (JsonValueToString in util/json_tensor.cc), or so much of it as they show."""
    if isinstance(value, float):
        return _decimal(value)
    pieces, length = [], 0
    for piece in _INDENTING.iterencode(value):
        pieces.append(piece)
        length += len(piece)
        if length > LONGEST_ERROR:  # a deep list, indented, has the square of its length
            break
    return "".join(pieces)


def type_name(value: Any) -> str:
    """RapidJSON's name for the type of a JSON value."""
    if isinstance(value, bool) or value is None:
        return {True: "True", False: "False", None: "Null"}[value]
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def write(value: Any) -> bytes:
    """The JSON text of nested lists, objects and arrays; float32 with the fewest digits that give it back."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def write_indented(value: Any) -> bytes:
    """The JSON text of nested lists and objects, to be read by people as well."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def write_array(array: np.ndarray) -> bytes:
    """The JSON text of an array of numbers or truth values."""
    if array.ndim == 0:
        return _not_finite(float(array)) or write(array[()])
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return write(np.ascontiguousarray(array))
    return b"[" + b",".join(write_array(each) for each in array) + b"]"


def error_body(error: ServingError) -> bytes:
    """The body of every answer that is an error."""
    # A text that quotes bytes which are not UTF-8 holds surrogates, which no answer can.
    message = error.message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if len(message) > LONGEST_ERROR:  # it may quote the whole request
        message = message[:LONGEST_ERROR] + "...TRUNCATED"
    return write({"error": message})


def _not_finite(value: float) -> bytes:
    if math.isnan(value):
        return b"NaN"
    if math.isinf(value):
        return b"Infinity" if value > 0 else b"-Infinity"
    return b""


def _decimal(value: float) -> str:
    # WriteDecimal: six digits where they are exact, all seventeen where not, and never without a dot.
    if not math.isfinite(value):
        return _not_finite(value).decode()
    text = f"{value:g}"
    text = text if float(text) == value else f"{value:.17g}"
    return text if "." in text or "e" in text else text + ".0"


def _parse_slowly(body: bytes) -> Any:
    text = body.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "surrogateescape")
    start = len(text) - len(text.lstrip(" \t\n\r"))
    if start == len(text):
        raise _parse_error("The document is empty.", text, start)
    if "Inf" in text:
        text = _STRING_OR_INF.sub(lambda found: "Infinity" if found[0] == "Inf" else found[0], text)
    decoder = json.JSONDecoder(parse_int=_parse_int, parse_float=_parse_float, object_pairs_hook=_first_of_each)
    try:
        document, _ = decoder.raw_decode(text, start)
        if _SURROGATE.search(text):  # perhaps half of a pair
            json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except json.JSONDecodeError as error:
        raise _parse_error(_rapid_message(error), text, _rapid_position(error)) from error
    except UnicodeEncodeError as error:
        raise _parse_error("The surrogate pair in string is invalid.", text, error.start) from error
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: The document is nested too deeply.") from error
    except _NumberTooBigError as error:
        raise _parse_error("Number too big to be stored in double.", text, text.index(str(error))) from error
    return document


def _first_of_each(members: list[tuple[str, Any]]) -> dict[str, Any]:
    first: dict[str, Any] = {}
    for name, value in members:
        first.setdefault(name, value)
    return first


class _NumberTooBigError(Exception):
    pass


def _parse_int(digits: str) -> int | float:
    value = int(digits) if len(digits) <= 20 else _INT64_MIN - 1
    return value if _INT64_MIN <= value <= _UINT64_MAX else _parse_float(digits)


def _parse_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NumberTooBigError(digits)
    return value


def _rapid_message(error: json.JSONDecodeError) -> str:
    if error.msg == "Expecting ',' delimiter":
        return _MISSING_COMMA[_enclosing(error.doc[: error.pos])]
    return _MESSAGES.get(error.msg, "Invalid value.")


def _rapid_position(error: json.JSONDecodeError) -> int:
    if not error.msg.startswith(_TRAILING_COMMA):
        return error.pos
    behind = error.doc[error.pos + 1 :]  # RapidJSON, and Python before 3.13, complain of the bracket behind the comma
    return error.pos + 1 + len(behind) - len(behind.lstrip(" \t\n\r"))


def _enclosing(text: str) -> str:
    """The bracket that is open at the end of a text."""
    opened: list[str] = []
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            opened.append(found[0])
        elif found[0] in "]}":
            opened.pop()
    return opened[-1]


def _parse_error(message: str, text: str, position: int) -> ServingError:
    offset = len(text[:position].encode("utf-8", "surrogatepass"))
    return invalid_argument(f"JSON Parse error: {message} at offset: {offset}")
