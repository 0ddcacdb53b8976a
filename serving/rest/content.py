"""Responses, the HTTP status for each error code, and content negotiation: media types, weights, compression."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from backports import zstd

from serving.errors import Code, ServingError, invalid_argument
from serving.wire.json_text import error_body
from serving.wire.requests import LARGEST_EXPANSION

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
PROTOBUF = "application/x-protobuf"
FORM = "multipart/form-data"
BYTES = "application/octet-stream"
IMAGE = "image/*"

SMALLEST_COMPRESSED = 1024
"""Bytes. Shorter responses are not compressed: they fit a packet anyway."""

STATUSES = {  # ToHTTPStatusCode in http_server.cc
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INTERNAL: 500,
    Code.DATA_LOSS: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}

Headers = tuple[tuple[bytes, bytes], ...]

_OTHER_NAMES = dict.fromkeys(("application/protobuf", "application/vnd.google.protobuf"), PROTOBUF)
_MOST_MEMBERS = 1000  # compressed files may be joined; each costs time, however short it is
_WINDOW = 64 * 1024
_ZSTD_WINDOW: dict[int, int] = {
    zstd.DecompressionParameter.window_log_max: 23
}  # 8 MB (RFC 9659): memory that a frame asks for at once
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {  # the first is the fastest
    "zstd": lambda body: zstd.compress(body, level=1),
    "gzip": lambda body: gzip.compress(body, compresslevel=1, mtime=0),
}
_VARY = (b"vary", b"Accept-Encoding")


class Response(NamedTuple):
    """A whole response. The names of its headers are in lower case, as ASGI wants them."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Headers = ()


def error_response(code: Code, message: str, headers: Headers = ()) -> Response:
    """The response to a request that failed."""
    return Response(STATUSES[code], error_body(ServingError(code, message)), headers=headers)


def version_header(version: int | None) -> Headers:
    """The header with the version that answered."""
    return () if version is None else ((b"x-model-version", b"%d" % version),)


def media_type(content_type: str) -> str:
    """The media type in a Content-Type header, without its parameters; `IMAGE` for every image."""
    name = content_type.partition(";")[0].strip().lower()
    return IMAGE if name.startswith("image/") else _OTHER_NAMES.get(name, name)


def choose_type(accept: str, offered: Sequence[str]) -> str:
    """The offered type with the largest weight in an Accept header, or the first one if the header accepts none."""
    if accept in ("", "*/*"):
        return offered[0]
    listed = {_OTHER_NAMES.get(name, name): weight for name, weight in weights(accept).items()}

    def liking(name: str) -> tuple[float, int]:
        patterns = ("*/*", name.partition("/")[0] + "/*", name)
        ranks = [rank for rank, pattern in enumerate(patterns) if pattern in listed]
        return (listed[patterns[ranks[-1]]], ranks[-1]) if ranks else (0.0, 0)  # the most specific one counts

    best = max(offered, key=liking)  # the first of equals
    return best if liking(best)[0] > 0 else offered[0]


def weights(header: str) -> dict[str, float]:
    """The items of a header such as Accept with their weights (RFC 9110, section 12.4.2)."""
    listed = {}
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        listed[name] = next(map(_weight, filter(_is_weight, parameters)), 1.0)
    return listed


def compressed(response: Response, accept_encoding: str) -> Response:
    """Compresses a response as its client prefers. Only text is compressed: arrays of floats hardly shrink."""
    if len(response.body) < SMALLEST_COMPRESSED or not response.content_type.startswith((JSON, "text/")):
        return response
    headers = (*response.headers, _VARY)
    listed = weights(accept_encoding)
    rest = listed.get("*", 0.0)
    best = max(_COMPRESS, key=lambda name: listed.get(name, rest))
    if listed.get(best, rest) <= listed.get("identity", 0.0):
        return response._replace(headers=headers)
    headers = (*headers, (b"content-encoding", best.encode()))
    return response._replace(body=_COMPRESS[best](response.body), headers=headers)


def decompressed(body: bytes, encoding: str, largest: int = LARGEST_EXPANSION) -> bytes:
    """Undoes the Content-Encoding of a request: gzip, deflate or zstd.

    Every other encoding is ignored, as TensorFlow Serving ignores all but gzip. Raises ServingError if the body is
    damaged or inflates to more than `largest` bytes.
    """
    name = encoding.strip().lower().removeprefix("x-")
    return _inflate(body, name, min(largest, LARGEST_EXPANSION)) if name in _DECOMPRESSORS else body


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _inflate(body: bytes, encoding: str, largest: int) -> bytes:
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


def _deflate(body: bytes) -> _Decompressor:
    # RFC 9110 means zlib's format; some clients leave its two bytes of header out.
    is_zlib = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)


_DECOMPRESSORS: dict[str, Callable[[bytes], _Decompressor]] = {
    "gzip": lambda body: zlib.decompressobj(16 + zlib.MAX_WBITS),
    "deflate": _deflate,
    "zstd": lambda body: zstd.ZstdDecompressor(options=_ZSTD_WINDOW),
}


def _is_weight(parameter: str) -> bool:
    return parameter.partition("=")[0].strip() == "q"


def _weight(parameter: str) -> float:
    try:
        weight = float(parameter.partition("=")[2])
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
