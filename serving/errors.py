"""The one error type of the server, with the canonical codes that every transport translates."""

import enum
from collections.abc import Iterator
from contextlib import contextmanager

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
    """A failed request or version, with the code and the text for the client.

    A hint says what the signature of this name takes, for a client whose arguments do not fit.
    """

    def __init__(self, code: Code, message: str, hint: str = "", signature_name: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.signature_name = signature_name

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> ServingError:
    """Makes the most common error."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def truncate(message: str) -> str:
    """Cuts a text that is too long for a gRPC status."""
    return message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "...TRUNCATED"


class MissingPackageError(ImportError):
    """A package that is not installed; the text says how to install it."""


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Raises MissingPackageError if an import fails because a package of an extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == __package__:
            raise
        brings_it = f"in a clone of keras_prelu, pip install -e '.[{extra}]' brings it"
        raise MissingPackageError(f"{package} is not installed; {brings_it}", name=error.name) from error
