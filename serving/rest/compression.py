"""Bodies that come compressed, and answers that are compressed where a client takes that."""

import gzip
import zlib
from collections.abc import Callable
from typing import Protocol

from backports import zstd

from serving.errors import invalid_argument
from serving.http.requests import Request
from serving.http.responses import Response
from serving.rest.media_types import weights
from serving.wire.expansion import LARGEST_EXPANSION

SMALLEST_ANSWER = 1024
"""Bytes. Shorter answers are not compressed: they fit a packet anyway."""

_MOST_MEMBERS = 1000  # compressed files may be joined; each costs time, however short it is
_WINDOW = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_ZSTD_WINDOW: dict[int, int] = {
    zstd.DecompressionParameter.window_log_max: 23
}  # 8 MB (RFC 9659): memory that a frame asks for at once
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {  # the first is the fastest
    "zstd": lambda body: zstd.compress(body, level=1),
    "gzip": lambda body: gzip.compress(body, compresslevel=1, mtime=0),
}
_VARY = b"Vary: Accept-Encoding\r\n"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decompressed_body(request: Request) -> bytes:
    """A request's body as it was before its Content-Encoding. Raises ServingError where it is damaged or too large.

    Encodings that nobody knows are passed over, as TensorFlow Serving passes over all but gzip.
    """
    encoding = request.headers.get(b"content-encoding")
    if not encoding:
        return request.body
    name = encoding.strip().lower().decode("latin-1").removeprefix("x-")
    largest = min(LARGEST_EXPANSION, request.largest_body)
    return decompress(request.body, name, largest) if name in _DECOMPRESSORS else request.body


def decompress(body: bytes, encoding: str, largest: int = LARGEST_EXPANSION) -> bytes:
    """What was compressed as gzip, deflate or zstd. Raises ServingError where it is damaged, or holds too much."""
    whole = bytearray()
    position = num_members = 0
    member: _Decompressor | None = None
    while position < len(body):
        if member is None:
            member, num_members = _DECOMPRESSORS[encoding](body), num_members + 1
        window = body[position : position + _WINDOW]
        try:
            whole += member.decompress(window, largest + 1 - len(whole))
        except (zlib.error, zstd.ZstdError) as error:
            raise invalid_argument(f"Request body is not valid {encoding}: {error}") from error
        if len(whole) > largest:
            raise invalid_argument(f"Request body inflates to more than {largest} bytes.")
        if num_members > _MOST_MEMBERS:
            raise invalid_argument(f"Request body is {encoding} of more than {_MOST_MEMBERS} members.")
        position += len(window) - len(member.unused_data)
        member = None if member.eof else member
    if member is not None:
        raise invalid_argument(f"Request body is not valid {encoding}: it ends too early")
    return bytes(whole)


def compressed_answer(request: Request, response: Response) -> Response:
    """An answer as it is to be sent. Only text is compressed: arrays of floats hardly shrink."""
    if len(response.body) < SMALLEST_ANSWER or not response.content_type.startswith(("application/json", "text/")):
        return response
    encoding = _wanted_encoding(request.headers.get(b"accept-encoding", b""))
    if encoding is None:
        return response._replace(headers=response.headers + _VARY)
    headers = response.headers + _VARY + f"Content-Encoding: {encoding}\r\n".encode()
    return response._replace(body=_COMPRESS[encoding](response.body), headers=headers)


def _wanted_encoding(accepted: bytes) -> str | None:
    if not accepted:
        return None
    listed = weights(accepted)
    rest = listed.get("*", 0.0)
    best = max(_COMPRESS, key=lambda name: listed.get(name, rest))
    return best if listed.get(best, rest) > listed.get("identity", 0.0) else None


def _deflate(body: bytes) -> _Decompressor:
    # RFC 9110 means zlib's format; some clients leave its two bytes of header out.
    is_zlib = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)


_DECOMPRESSORS: dict[str, Callable[[bytes], _Decompressor]] = {
    "gzip": lambda body: zlib.decompressobj(_GZIP),
    "deflate": _deflate,
    "zstd": lambda body: zstd.ZstdDecompressor(options=_ZSTD_WINDOW),
}
