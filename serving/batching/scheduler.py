"""The threads that run batches: one pool for all models, which take turns.

A request runs in its caller's thread if a thread of the pool is free, nothing waits before it, and batches do not wait
for more requests: to hand it over and back would buy nothing. Meanwhile it counts as one of the pool's threads.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from serving.background import BackgroundThread
from serving.batching.batch_queue import Batch, BatchQueue, Task
from serving.batching.options import BatchingOptions
from serving.errors import Code, ServingError


class Key(NamedTuple):
    """Requests with the same key run together: they fetch the same tensors, and their inputs have the same shapes."""

    fetches: Sequence[str]
    shapes: Hashable


@dataclass(eq=False)
class Client:
    """A loaded version whose requests are batched: the function that runs a batch, and the queues."""

    execute: Callable[[Key, Batch], None]
    options: BatchingOptions
    queues: dict[Key, BatchQueue] = field(default_factory=dict)
    num_tasks: int = 0
    closed: bool = False


class BatchScheduler:
    """A pool of threads, each of which takes a batch that is ready and runs it."""

    def __init__(self, options: BatchingOptions) -> None:
        self.options = options
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # there is work, or the end has come
        self._finished = threading.Condition(lock)  # a client that closes, or all, have no tasks any more
        self._busy: dict[Client, None] = {}  # the clients that have queues, the one whose turn is next first
        self._num_running = 0
        self._closing = False
        self._threads = [
            BackgroundThread(self._work, f"{options.thread_pool_name}_{number}")
            for number in range(options.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, client: Client, key: Key, task: Task) -> list[Task]:
        """Puts a request in a queue, in pieces if it is split. Raises ServingError if the queue refuses it."""
        with self._changed:
            if self._closing or client.closed:
                raise ServingError(Code.UNAVAILABLE, "The batch scheduler is closed")
            waiting = client.queues.get(key) or BatchQueue(client.options)
            pieces = waiting.add(task)
            client.num_tasks += len(pieces)
            waits_for_more = bool(client.options.batch_timeout_micros)
            runs_here = len(pieces) == 1 and not waits_for_more and not self._busy and self._has_free_thread()
            if runs_here:
                batch = waiting.take()
                self._num_running += 1
            else:
                client.queues[key] = waiting
                self._busy.setdefault(client)
                self._wake_one()
        if runs_here:
            self._execute(client, key, batch)
            with self._changed:
                self._wake_one()  # a thread of the pool would look for more work itself
        return pieces

    def withdraw(self, client: Client, key: Key, task: Task) -> bool:
        """Removes a task from its queue. Returns whether it had not begun to run."""
        with self._changed:
            waiting = client.queues.get(key)
            if waiting is None or not waiting.withdraw(task):
                return False
            self._forget_if_empty(client, key)
            self._count_finished(client, 1)
            return True

    def close_client(self, client: Client) -> None:
        """Refuses new requests of a client and returns once the old ones are answered."""
        with self._finished:
            client.closed = True
            self._changed.notify_all()  # batches that wait for more requests wait in vain
            self._finished.wait_for(lambda: not client.num_tasks)

    def close(self, timeout: float | None = None) -> bool:
        """Refuses new requests and runs the old ones. Returns whether all ended in that many seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            ended = self._finished.wait_for(lambda: not self._busy and not self._num_running, timeout)
        for thread in self._threads if ended else ():
            thread.join()
        return ended

    def _has_free_thread(self) -> bool:
        return self._num_running < self.options.num_batch_threads

    def _wake_one(self) -> None:
        if self._busy and self._has_free_thread():
            self._changed.notify()

    def _work(self) -> None:
        while (work := self._wait_for_work()) is not None:
            self._execute(*work)
            del work  # a thread that waits must not keep a model or its arrays alive

    def _execute(self, client: Client, key: Key, batch: Batch) -> None:
        num_tasks = len(batch.tasks)
        try:
            client.execute(key, batch)
        finally:
            with self._changed:
                self._num_running -= 1
                self._count_finished(client, num_tasks)
                if self._closing:
                    self._changed.notify_all()
                    self._finished.notify_all()

    def _wait_for_work(self) -> tuple[Client, Key, Batch] | None:
        with self._changed:
            while True:
                now = time.monotonic()
                work, ready_at = self._next(now) if self._has_free_thread() else (None, None)
                if work is not None:
                    self._num_running += 1
                    self._wake_one()  # to watch what is left
                    return work
                if self._closing and not self._busy:
                    return None
                self._changed.wait(None if ready_at is None else ready_at - now)

    def _next(self, now: float) -> tuple[tuple[Client, Key, Batch] | None, float | None]:
        """A batch that is ready, of clients and queues in turn; or else the time at which the next one will be."""
        next_ready = None
        for client in self._busy:
            for key, waiting in client.queues.items():
                ready_at = waiting.ready_at()
                if ready_at <= now or self._closing or client.closed:
                    return (client, key, self._take(client, key)), None
                next_ready = ready_at if next_ready is None else min(next_ready, ready_at)
        return None, next_ready

    def _take(self, client: Client, key: Key) -> Batch:
        waiting = client.queues[key]
        batch = waiting.take()
        client.queues[key] = client.queues.pop(key)  # to the end: it is the turn of the others
        del self._busy[client]
        self._busy[client] = None
        self._forget_if_empty(client, key)
        return batch

    def _forget_if_empty(self, client: Client, key: Key) -> None:
        if not client.queues[key]:
            del client.queues[key]
        if not client.queues:
            del self._busy[client]

    def _count_finished(self, client: Client, num_tasks: int) -> None:
        client.num_tasks -= num_tasks
        if client.closed and not client.num_tasks:
            self._finished.notify_all()
