"""What comes in over HTTP/1.1, and how much of it may."""

from dataclasses import dataclass, field

from serving.http.responses import Response


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may send and how long it may take, in bytes and seconds."""

    head_size: int = 64 * 1024
    """Of the request line and the headers, where each of these counts for 32 bytes more."""
    body_size: int = 512 * 1024 * 1024
    head_time: float = 30
    """For the request line with all headers, and for the client to take a part of its answer."""
    handshake_time: float = 30
    """For that of TLS."""
    body_rate: float = 1024
    """Bytes a second that a body must bring on average; it may stop for `head_time` besides."""
    idle_time: float = 75
    """Between requests."""
    last_idle_time: float = 0.5
    """The same, while the server stops."""
    all_bodies_size: int = 2 * 1024 * 1024 * 1024
    """Of all connections together, until they are answered. The largest incomplete body is refused first, then the
    newest."""
    connections: int = 0
    """That are open at a time; 0 stands for any number, here and below."""
    connections_per_address: int = 0
    linger_time: float = 2
    """For a client that is refused while it still sends to read why."""
    discarded_size: int = 64 * 1024
    """Of a body that nobody wants, but that is read so that its connection can go on."""


@dataclass
class Request:
    """What came in. Path and query are as they were sent, still encoded; names of headers are in lower case."""

    method: str = ""
    path: str = ""
    query: str = ""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    largest_body: int = Limits.body_size
    """Bytes that its body may have, and what a compressed one may inflate to."""
    keep_alive: bool = True
    client: str = ""
    """The address that it came from."""
    sender: str = ""
    """Who sent it, where that is known by its head."""
    answer: Response | None = None
    """What it was answered by its head, so that its body was not kept."""
    cancelled: bool = False
    """Whether the client has gone away meanwhile."""


@dataclass(frozen=True)
class Refusal:
    """Why nothing more is read from a client: the request, as far as it is known, and its answer.

    There is a reason where it is this server's own.
    """

    request: Request
    response: Response
    reason: str = ""
