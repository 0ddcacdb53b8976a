"""What goes out over HTTP/1.1, and its bytes."""

from http import HTTPStatus
from typing import NamedTuple

_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
_STATUS_LINES[499] = b"HTTP/1.1 499 Client Closed Request\r\n"  # nginx's, and TensorFlow Serving's for CANCELLED
_CLOSE = b"Connection: close\r\n"


class Response(NamedTuple):
    """What goes out; the headers are whole lines."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: bytes = b""
    closes: bool = False
    """Whether the connection ends with it."""

    def head(self, more_headers: bytes = b"", keep_alive: bool = True) -> bytes:
        """All that comes before the body; the headers that are added are whole lines, too."""
        return b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b%b\r\n" % (
            _STATUS_LINES[self.status],
            self.content_type.encode(),
            len(self.body),
            more_headers,
            self.headers,
            b"" if keep_alive else _CLOSE,
        )
