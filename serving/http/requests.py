"""Bytes of an HTTP/1.1 connection -> requests, with a limit for all that a client may send or wait with."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools

_UPGRADE_HEADERS = (b"connection", b"upgrade", b"http2-settings")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may send and how long it may take, in bytes and seconds."""

    head_size: int = 64 * 1024
    body_size: int = 512 * 1024 * 1024
    head_time: float = 30
    """For the request line with all headers, and for the client to take a part of its answer."""
    body_rate: float = 1024
    """Bytes a second that a body must bring on average; it may stop for `head_time` besides."""
    idle_time: float = 75
    """Between requests."""
    last_idle_time: float = 0.5
    """The same, while the server stops."""
    all_bodies_size: int = 2 * 1024 * 1024 * 1024
    """Of all connections together; the largest body is refused first."""
    connections: int = 0
    """That are open at a time; 0 stands for any number, here and below."""
    connections_per_address: int = 0
    linger_time: float = 2
    """For a client that is refused while it still sends to read why."""


@dataclass
class Request:
    """What came in. Path and query are as they were sent, still encoded; names of headers are in lower case."""

    method: str = ""
    path: str = ""
    query: str = ""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True
    client: str = ""
    """The address that it came from."""
    cancelled: bool = False
    """Whether the client has gone away meanwhile."""


@dataclass(frozen=True)
class Refusal:
    """Why nothing more is read from a client."""

    status: HTTPStatus
    message: str


class RequestReader:
    """Parses with httptools, whose parser is that of Node.js, and calls the methods that begin with `on_`."""

    def __init__(self, limits: Limits, send_continue: Callable[[], None]) -> None:
        self.refusal: Refusal | None = None
        self._limits = limits
        self._send_continue = send_continue
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None  # the one that is coming in
        self._complete: list[Request] = []
        self._unended_size = 0
        self._chunks: list[bytes] = []
        self._reset()

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a next request has come."""
        return self._request is None

    @property
    def buffered_size(self) -> int:
        """The bytes of a body that is not complete."""
        return self._body_size if self._chunks else 0

    def feed(self, data: bytes) -> list[Request]:
        """The requests that these bytes complete. Where the rest makes no sense, `refusal` says so afterwards."""
        if self.refusal is not None:
            return []
        try:
            self._parse(data)
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
        if self.refusal is None:
            self.refusal, self._chunks = Refusal(status, message), []

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        self._reset()
        self._request = Request()

    def on_url(self, url: bytes) -> None:
        """A part of the address has come."""
        self._url += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or one of those that may follow a body in chunks."""
        assert self._request is not None
        self._head_size += len(name) + len(value)
        if self._head_size > self._limits.head_size:
            self._refuse_head()
        else:
            self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """All headers have come."""
        request, self._in_head = self._request, False
        assert request is not None
        request.method = self._parser.get_method().decode("ascii")
        request.path, request.query = _path_and_query(self._url)
        request.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
        if int(request.headers.get(b"content-length", b"0")) > self._limits.body_size:
            self._refuse_body()
        elif request.headers.get(b"expect", b"").lower() == b"100-continue":
            self._send_continue()

    def on_body(self, chunk: bytes) -> None:
        """A part of the body has come."""
        self._body_size += len(chunk)
        if self._body_size > self._limits.body_size:
            self._refuse_body()
        if self.refusal is None:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """The request is there."""
        assert self._request is not None
        if self.refusal is None:
            self._request.body = b"".join(self._chunks)
            self._complete.append(self._request)
            self._request, self._chunks = None, []

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
        return b"\r\n".join([*lines, b"", b""])

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._in_head = True
        self._url = b""
        self._head_size = 0
        self._body_size = 0
        self._chunks = []

    def _check_unended(self, num_bytes: int) -> None:
        # A header that has not ended is still in the parser, so what came without ending anything counts, too.
        unended = not self.is_idle and self._in_head and not self._complete
        self._unended_size = self._unended_size + num_bytes if unended else 0
        if max(self._head_size, self._unended_size) > self._limits.head_size:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large.")

    def _refuse_body(self) -> None:
        self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {self._limits.body_size} bytes.")


def _path_and_query(url: bytes) -> tuple[str, str]:
    if not url.startswith(b"/"):  # a proxy is asked with the whole address
        try:
            parsed = httptools.parse_url(url)
        except httptools.HttpParserInvalidURLError:
            return "", ""
        url = (parsed.path or b"/") + b"?" + (parsed.query or b"")
    path, _, query = url.partition(b"?")
    return path.decode("latin-1"), query.decode("latin-1")
