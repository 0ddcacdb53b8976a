"""Forms that browsers and `curl -F` send (multipart/form-data, RFC 7578) -> their fields."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.errors import invalid_argument

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_FIELDS = 4096


@dataclass
class Field:
    """One field of a form: what it is called, what is in it, and whether that is a file."""

    name: str
    content: bytes = b""
    is_file: bool = False


def read_form(body: bytes, content_type: bytes) -> list[Field]:
    """The fields of a form, in order. Raises ServingError where a body is none."""
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise invalid_argument("Content-Type multipart/form-data names no boundary.")
    form = _Form()
    try:
        MultipartParser(boundary, form.callbacks()).write(body)
    except (FormParserError, ValueError) as error:
        raise invalid_argument(f"Expected a body of multipart/form-data: {error}") from error
    if not form.ended:
        raise invalid_argument("Expected a body of multipart/form-data: it ends too early")
    return form.fields


class _Form:
    """Collects what the parser calls out."""

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.ended = False
        self._header = [b"", b""]
        self._disposition = b""
        self._pieces: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add_to_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add_to_header(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": lambda data, start, end: self._pieces.append(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.fields) == _MOST_FIELDS:
            raise ValueError(f"it has more than {_MOST_FIELDS} fields")
        self._disposition, self._pieces = b"", []

    def _add_to_header(self, part: int, text: bytes) -> None:
        self._header[part] += text

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _end_headers(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        if b"name" not in parameters:
            raise ValueError("a field has no name")
        self.fields.append(Field(parameters[b"name"].decode("utf-8", "replace"), is_file=b"filename" in parameters))

    def _end_part(self) -> None:
        self.fields[-1].content = b"".join(self._pieces)

    def _end(self) -> None:
        self.ended = True
