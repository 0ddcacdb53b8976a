"""When a call that failed is made again, and how long it may take in all."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Retries:
    """How often a call is made again that met nobody: UNAVAILABLE, refused and broken connections, HTTP's 502 and 503.

    Waits double from the first to the longest, in seconds; half of each is drawn at random, so that clients of a server
    that was restarted do not come back together. No call outlives its timeout for them.
    """

    attempts: int = 5
    first_wait: float = 0.1
    longest_wait: float = 2.0

    def waits(self) -> Iterator[float]:
        """The seconds before each attempt but the first."""
        for retry in range(self.attempts - 1):
            yield min(self.first_wait * 2**retry, self.longest_wait) * random.uniform(0.5, 1)


class Limits:
    """When a call ends, some seconds from now or never where they are None, and when it is made again."""

    __slots__ = ("_end", "retries")

    def __init__(self, seconds: float | None, retries: Retries) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.retries = retries

    def remaining(self) -> float | None:
        """The seconds that are left, 0 at least; None where there is no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def allows(self, seconds: float) -> bool:
        """Whether the call ends later than that."""
        return self._end is None or time.monotonic() + seconds < self._end
