"""The one error type of the server, with the canonical codes that every transport translates."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.wire.signatures import Signature

# util/status_util and grpc_status_util.cc: longer texts would not fit HTTP/2 trailers.
LONGEST_MESSAGE = 1024


class Code(enum.IntEnum):
    """The canonical codes of google/rpc/code.proto, which TensorFlow and gRPC number alike."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A request or a version that failed, with the code and the text that its caller is to see.

    `signature` is the one that the arguments of a request were for, where they may be the cause.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.signature: Signature | None = None

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> ServingError:
    """The commonest error."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def truncate(message: str) -> str:
    """Cuts a text that is too long for a gRPC status."""
    return message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "...TRUNCATED"
