"""Threads that answer requests, and how long requests wait for one."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from serving.request_facts import facts

P = ParamSpec("P")
T = TypeVar("T")


class RequestThreads(ThreadPoolExecutor):
    """A pool that counts what waits for a thread, and tells each request how long it has waited."""

    def __init__(self, num_threads: int, name: str) -> None:
        super().__init__(num_threads, name)
        self.num_queued = 0
        self._counting = threading.Lock()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Calls a function as soon as a thread is free."""
        since = time.perf_counter()

        def call() -> T:
            self._count(-1)
            facts.begin(time.perf_counter() - since)
            return function(*args, **kwargs)

        self._count(+1)
        try:
            return super().submit(call)
        except RuntimeError:  # the pool has been shut down
            self._count(-1)
            raise

    def _count(self, change: int) -> None:
        with self._counting:
            self.num_queued += change
