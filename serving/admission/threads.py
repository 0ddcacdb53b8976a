"""Threads that answer requests, and the number of requests that wait for one."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class RequestThreads(ThreadPoolExecutor):
    """A pool that counts the requests that it answers, and those that wait for a thread."""

    def __init__(self, num_threads: int, name: str) -> None:
        super().__init__(num_threads, name)
        self.num_threads = num_threads
        self._num_open = 0  # requests that run or wait
        self._counting = threading.Lock()

    @property
    def num_queued(self) -> int:
        """The number of requests that wait."""
        return max(0, self._num_open - self.num_threads)

    @property
    def num_busy(self) -> int:
        """The number of threads that answer a request."""
        return min(self._num_open, self.num_threads)

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Calls a function as soon as a thread is free."""
        self._count(+1)
        try:
            future = super().submit(function, *args, **kwargs)
        except RuntimeError:  # the pool has been shut down
            self._count(-1)
            raise
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _count(self, change: int) -> None:
        with self._counting:
            self._num_open += change
