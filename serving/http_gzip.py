"""Bodies that come with `Content-Encoding: gzip`."""

import zlib

from serving.errors import invalid_argument

LARGEST_BODY = 100 * 1024 * 1024
"""Bytes to which a body may grow, as in TensorFlow Serving."""
_MOST_MEMBERS = 1000  # gzip files may be joined; each costs time, however short it is
_WINDOW = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS


def inflate(body: bytes) -> bytes:
    """What was compressed. Raises ServingError where a body is no gzip, ends too early, or holds too much."""
    inflated = bytearray()
    position = num_members = 0
    member = None
    while position < len(body):
        if member is None:
            member, num_members = zlib.decompressobj(_GZIP), num_members + 1
        window = body[position : position + _WINDOW]
        try:
            inflated += member.decompress(window, LARGEST_BODY + 1 - len(inflated))
        except zlib.error as error:
            raise invalid_argument(f"Request body is not valid gzip: {error}") from error
        if len(inflated) > LARGEST_BODY:
            raise invalid_argument(f"Request body inflates to more than {LARGEST_BODY} bytes.")
        if num_members > _MOST_MEMBERS:
            raise invalid_argument(f"Request body is gzip of more than {_MOST_MEMBERS} members.")
        position += len(window) - len(member.unused_data)
        member = None if member.eof else member
    if member is not None:
        raise invalid_argument("Request body is not valid gzip: it ends too early")
    return bytes(inflated)
