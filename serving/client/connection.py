"""Shared by both protocols: trust in a server, retries and time limits of a call, errors, classes."""

import asyncio
import math
import pathlib
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from serving.errors import Code, ServingError

T = TypeVar("T")


@dataclass(frozen=True)
class Tls:
    """PEM files: the authorities to trust in place of the well-known ones, and the client's own certificate and key."""

    ca: str | pathlib.Path | None = None
    certificate: str | pathlib.Path | None = None
    key: str | pathlib.Path | None = None

    def context(self) -> ssl.SSLContext:
        """The files for Python's sockets. Raises OSError if a file cannot be read, ssl.SSLError if it is no PEM."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authorities, key and certificate, for gRPC. Raises OSError if a file cannot be read."""
        ca, key, certificate = (
            None if path is None else pathlib.Path(path).read_bytes() for path in (self.ca, self.key, self.certificate)
        )
        return ca, key, certificate


@dataclass(frozen=True)
class Retries:
    """Retries of a call that nobody answered: UNAVAILABLE, broken connections, HTTP's 502, 503 and some 429.

    Waits double from the first to the longest, in seconds. Up to half of each wait is dropped at random, so that the
    clients of a server that was restarted do not come back together. If the server asks for a longer wait, by HTTP's
    `Retry-After`, the client waits that long; only with this header is a 429 repeated. No call outlives its timeout.
    """

    attempts: int = 5
    first_wait: float = 0.1
    longest_wait: float = 2.0

    def waits(self) -> Iterator[float]:
        """The seconds before each attempt but the first."""
        for retry in range(self.attempts - 1):
            yield min(self.first_wait * 2**retry, self.longest_wait) * random.uniform(0.5, 1)


class Class(NamedTuple):
    """A label and its score."""

    label: str
    score: float


class RetryableError(ServingError):
    """A call that may be repeated, but no earlier than after `retry_after` seconds."""

    def __init__(self, code: Code, message: str, retry_after: float = 0.0) -> None:
        super().__init__(code, message)
        self.retry_after = retry_after


class SignatureChangedError(ServingError):
    """A reply that does not fit the signature: another version gave it."""

    def __init__(self, model: str) -> None:
        super().__init__(Code.INTERNAL, f"the reply does not fit the signature that {model} says it has")


class Limits:
    """When a call ends, some seconds from now or never if they are None, and how it waits until it is repeated."""

    def __init__(self, seconds: float | None, retries: Retries, is_async: bool) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds
        self._retries = retries
        self._is_async = is_async

    def remaining(self) -> float | None:
        """The seconds that are left, 0 at least; None if there is no end."""
        return None if self._end == math.inf else max(0.0, self._end - time.monotonic())

    def first(self, seconds: float) -> "Limits":
        """The limits of one attempt that may take some seconds of those that are left."""
        return Limits(min(seconds, self._end - time.monotonic()), Retries(attempts=1), self._is_async)

    async def wait(self, seconds: float) -> bool:
        """Waits, or returns False at once if the call would end before."""
        if time.monotonic() + seconds >= self._end:
            return False
        if self._is_async:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)
        return True

    async def retry(self, attempt: Callable[[float | None], Awaitable[T]]) -> T:
        """Makes a call, each time with the seconds that are left, until it succeeds or may not be repeated."""
        waits = self._retries.waits()
        while True:
            try:
                return await attempt(self.remaining())
            except RetryableError as error:
                wait = max(next(waits, math.inf), error.retry_after)
                if not await self.wait(wait):
                    raise
