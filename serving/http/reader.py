"""Bytes of an HTTP/1.1 connection -> requests, with a limit for all that a client may send or wait with."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NoReturn

import httptools

from serving.errors import invalid_argument
from serving.http.requests import Limits, Refusal, Request
from serving.http.responses import Response
from serving.wire.json_text import error_body

_HEADER_OVERHEAD = 32  # bytes that each header counts for besides its own, as in HTTP/2 (RFC 9113, section 6.5.2)
_LARGE_CHUNK = 4096  # bytes
_UPGRADE_HEADERS = (b"connection", b"upgrade", b"http2-settings")


class _RefusedError(Exception):
    """Ends the work of the parser, whatever else it was fed."""


class RequestReader:
    """Parses with httptools, whose parser is that of Node.js, and calls the methods that begin with `on_`."""

    def __init__(
        self,
        limits: Limits,
        answer_head: Callable[[Request], Response | None] = lambda request: None,
    ) -> None:
        self.refusal: Refusal | None = None
        self._limits = limits
        self._answer_head = answer_head
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None  # the one that is coming in
        self._complete: list[Request] = []
        self._unended_size = 0
        self._chunks: list[bytes | bytearray] = []
        self._waits_for_leave = False
        self._reset()

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a next request has come."""
        return self._request is None

    @property
    def buffered_size(self) -> int:
        """The bytes of a body that is not complete."""
        return self._body_size if self._chunks else 0

    def drop_body(self) -> None:
        """Forgets a body that is not complete, of a client that has gone."""
        self._chunks = []

    def gives_leave(self) -> bool:
        """Whether the client waits for leave to send its body, which it has from then on."""
        waits, self._waits_for_leave = self._waits_for_leave, False
        return waits

    def feed(self, data: bytes) -> list[Request]:
        """The requests that these bytes complete. Where the rest makes no sense, `refusal` says so afterwards."""
        if self.refusal is not None:
            return []
        self._has_ended_part = False
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _RefusedError):
                raise
        except httptools.HttpParserError as error:
            self.refuse(HTTPStatus.BAD_REQUEST, f"Malformed HTTP request: {error}")
        self._check_unended(len(data))
        complete, self._complete = self._complete, []
        return complete

    def restart_clock(self) -> None:
        """Time begins anew, since nothing was read for a while."""
        self._since = time.monotonic()

    def check(self, now: float) -> None:
        """Refuses what comes too slowly."""
        allowed = self._limits.head_time + self._body_size / self._limits.body_rate
        if not self.is_idle and now - self._since > allowed:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive.")

    def refuse(self, status: HTTPStatus, message: str) -> None:
        """Reads nothing more, and forgets what is not complete."""
        response = Response(status, error_body(invalid_argument(message)))
        self._end(Refusal(self._known_request(), response, message))

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        self._reset()
        self._request = Request(largest_body=self._limits.body_size)

    def on_url(self, url: bytes) -> None:
        """A part of the address has come."""
        self._url += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or one of those that may follow a body in chunks, which are passed over."""
        assert self._request is not None
        self._has_ended_part = True
        self._head_size += len(name) + len(value) + _HEADER_OVERHEAD
        if self._head_size > self._limits.head_size:
            self._refuse_head()
            raise _RefusedError
        if self._in_head:
            self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """All headers have come."""
        request, self._in_head = self._request, False
        assert request is not None
        self._fill_line(request)
        request.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
        if self._parser.should_upgrade():  # it is read again as if it had not asked for that
            return
        request.answer = self._answer_head(request)
        if request.answer is not None:
            self._pass_over_body(request, request.answer)
        elif int(request.headers.get(b"content-length", b"0")) > self._limits.body_size:
            self._refuse_body()
        else:
            self._waits_for_leave = _expects_leave(request)

    def on_body(self, chunk: bytes) -> None:
        """A part of the body has come."""
        assert self._request is not None
        self._has_ended_part, self._waits_for_leave = True, False
        if self._request.answer is not None:
            return
        self._body_size += len(chunk)
        if self._body_size > self._limits.body_size:
            self._refuse_body()
        if len(chunk) >= _LARGE_CHUNK:
            self._chunks.append(chunk)
        elif self._chunks and isinstance(self._chunks[-1], bytearray):
            self._chunks[-1] += chunk
        else:  # together, small ones take no more memory than their bytes
            self._chunks.append(bytearray(chunk))

    def on_message_complete(self) -> None:
        """The request is there."""
        assert self._request is not None
        self._request.body = b"".join(self._chunks)
        self._complete.append(self._request)
        self._request, self._chunks, self._waits_for_leave = None, [], False

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]

    def _without_upgrade(self) -> bytes:
        """The head of the last request as if it had not asked for another protocol, for which its body was taken.

        Java's HttpClient asks for HTTP/2 so in every first request.
        """
        request = self._complete.pop()
        if request.method == "CONNECT":
            raise httptools.HttpParserError("this is no proxy")
        self._parser = httptools.HttpRequestParser(self)
        lines = [f"{request.method} ".encode() + self._url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in request.headers.items() if name not in _UPGRADE_HEADERS]
        if not request.keep_alive:
            lines.append(b"connection: close")
        return b"\r\n".join([*lines, b"", b""])

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._in_head = True
        self._url = b""
        self._head_size = 0
        self._body_size = 0
        self._chunks = []
        self._waits_for_leave = False

    def _check_unended(self, num_bytes: int) -> None:
        # A header or trailer that has not ended is still in the parser, so what came without ending any counts, too.
        unended = not self.is_idle and (self._in_head or not self._has_ended_part) and not self._complete
        self._unended_size = self._unended_size + num_bytes if unended else 0
        if max(self._head_size, self._unended_size) > self._limits.head_size:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large.")

    def _refuse_body(self) -> NoReturn:
        self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {self._limits.body_size} bytes.")
        raise _RefusedError

    def _pass_over_body(self, request: Request, answer: Response) -> None:
        """Goes on after a short body, and ends the connection before a long one.

        A client that waits for leave to send its body may go on without it, and what comes next would be taken for it.
        """
        size = int(request.headers.get(b"content-length", b"0"))
        is_long = size > self._limits.discarded_size or b"transfer-encoding" in request.headers
        if is_long or _expects_leave(request):
            self._end(Refusal(request, answer))
            raise _RefusedError

    def _end(self, refusal: Refusal) -> None:
        if self.refusal is None:
            self.refusal, self._chunks, self._waits_for_leave = refusal, [], False

    def _known_request(self) -> Request:
        if self._request is None:
            return Request()
        if self._url and not self._request.method:  # the rest of the head has not come
            self._fill_line(self._request)
        return self._request

    def _fill_line(self, request: Request) -> None:
        request.method = self._parser.get_method().decode("ascii")
        request.path, request.query = _path_and_query(self._url)


def _expects_leave(request: Request) -> bool:
    return request.headers.get(b"expect", b"").lower() == b"100-continue"


def _path_and_query(url: bytes) -> tuple[str, str]:
    if not url.startswith(b"/"):  # a proxy is asked with the whole address
        try:
            parsed = httptools.parse_url(url)
        except httptools.HttpParserInvalidURLError:
            return "", ""
        url = (parsed.path or b"/") + b"?" + (parsed.query or b"")
    path, _, query = url.partition(b"?")
    return path.decode("latin-1"), query.decode("latin-1")
