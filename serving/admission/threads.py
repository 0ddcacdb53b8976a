"""Threads that answer requests, and how long requests wait for one."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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


class Turns:
    """Lets a number of threads run at a time; the others wait, and run in the order in which they came."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._queue: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    @property
    def num_queued(self) -> int:
        """The number of threads that wait."""
        return len(self._queue)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until this thread may run. The time that it waited is added to the request's queue time."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    def _begin(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = threading.Lock()
            mine.acquire()
            self._queue.append(mine)
        since = time.perf_counter()
        mine.acquire()  # until another thread ends, and releases it
        facts.queue_time += time.perf_counter() - since

    def _end(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._free += 1
