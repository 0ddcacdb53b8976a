"""Requests that wait to run together: tasks in batches, batches in queues (shared_batch_scheduler.h)."""

import math
import queue
import time
from collections import deque
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from serving.batching.options import BatchingOptions
from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument


class Task:
    """A request, or a piece of a large one, that waits for its rows of a run. Times are of time.monotonic."""

    __slots__ = ("_answer", "_call", "deadline", "enqueued", "feeds", "size")

    def __init__(self, feeds: Mapping[str, np.ndarray], size: int, call: Call) -> None:
        self.feeds = feeds
        self.size = size
        self.enqueued = time.monotonic()
        left = call.remaining()
        self.deadline = math.inf if left is None else self.enqueued + left
        self._call = call
        self._answer: queue.SimpleQueue[list[np.ndarray] | Exception] = queue.SimpleQueue()

    def split(self, first: int, largest: int) -> list["Task"]:
        """Tasks of at most `largest` rows each, and of at most `first` the first."""
        bounds = [0, *range(first or largest, self.size, largest), self.size]
        return [self._piece(start, stop) for start, stop in pairwise(bounds)]

    def answer(self, answer: list[np.ndarray] | Exception) -> None:
        """Ends the wait, with arrays or with an error."""
        self._answer.put(answer)

    def wait(self) -> list[np.ndarray]:
        """The rows of the run. Raises what the run raised, or queue.Empty once the deadline has passed."""
        left = None if self.deadline == math.inf else max(0.0, self.deadline - time.monotonic())
        answer = self._answer.get(timeout=left)
        # Threads that raised the same object would write their tracebacks into it.
        if isinstance(answer, ServingError):
            raise ServingError(answer.code, answer.message) from answer
        if isinstance(answer, Exception):
            raise RuntimeError("A batched run failed") from answer
        return answer

    def gives_up(self, now: float) -> bool:
        """Ends the wait with an error if the time is up or the client has cancelled. Returns whether that is so."""
        if self.deadline <= now:
            self.answer(queue_timeout())
        elif self._call.is_cancelled():
            self.answer(ServingError(Code.CANCELLED, "Cancelled while waiting in batching queue"))
        else:
            return False
        return True

    def _piece(self, start: int, stop: int) -> "Task":
        feeds = {name: array[start:stop] for name, array in self.feeds.items()}
        piece = Task(feeds, stop - start, self._call)
        piece.enqueued, piece.deadline = self.enqueued, self.deadline
        return piece


class Batch:
    """Tasks that run together."""

    __slots__ = ("created", "size", "tasks")

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.size = 0
        self.created = time.monotonic()

    def add(self, task: Task) -> None:
        """Adds a task."""
        self.tasks.append(task)
        self.size += task.size


class BatchQueue:
    """The batches of requests that may run together; only the last one is open. Not safe for threads."""

    def __init__(self, options: BatchingOptions) -> None:
        self._options = options
        self._batches: deque[Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._batches)

    def add(self, task: Task) -> list[Task]:
        """Adds a request, in pieces if it has to be split. Raises ServingError if there is no room for it."""
        pieces = self._pieces(task)
        for piece in pieces:
            if not self._fits(piece.size):
                self._batches.append(Batch())
            self._batches[-1].add(piece)
        return pieces

    def ready_at(self) -> float:
        """The time at which the first batch may run: at once if it is closed, else after the timeout."""
        first = self._batches[0]
        if len(self._batches) > 1 or first.size >= self._options.largest_run:
            return first.created
        return first.created + self._options.batch_timeout_micros / 1e6

    def take(self) -> Batch:
        """Removes the first batch and returns it."""
        return self._batches.popleft()

    def withdraw(self, task: Task) -> bool:
        """Removes a task. Returns whether it was still here."""
        for batch in self._batches:
            if task in batch.tasks:
                batch.tasks.remove(task)
                batch.size -= task.size
                if not batch.tasks:
                    self._batches.remove(batch)
                return True
        return False

    def _fits(self, size: int) -> bool:
        return bool(self._batches) and self._batches[-1].size + size <= self._options.largest_run

    def _pieces(self, task: Task) -> list[Task]:
        options = self._options
        if task.size > options.max_batch_size:
            raise invalid_argument(
                f"Task size {task.size} is larger than maximum input batch size {options.max_batch_size}"
            )
        if options.enable_large_batch_splitting:
            return self._split(task)
        if not self._fits(task.size) and len(self._batches) >= options.max_enqueued_batches:
            raise _full(
                f"currently {len(self._batches)} batches enqueued and max_enqueued_batches is "
                f"{options.max_enqueued_batches}"
            )
        return [task]

    def _split(self, task: Task) -> list[Task]:
        largest, most_batches = self._options.largest_run, self._options.max_enqueued_batches
        num_batches = len(self._batches)
        open_size = self._batches[-1].size if self._batches else 0
        open_room = largest - open_size if self._batches else 0
        capacity = (most_batches - num_batches) * largest + open_room
        if task.size > capacity:
            raise _full(
                f"task size is {task.size} but scheduling capacity is only {capacity} "
                f"(num_enqueued_batches={num_batches}, max_enqueued_batches={most_batches}, "
                f"open_batch_size={open_size}, max_execution_batch_size={largest})"
            )
        return [task] if self._fits(task.size) else task.split(open_room, largest)


def queue_timeout() -> ServingError:
    """The error of a request whose deadline passed before it ran."""
    return ServingError(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")


def _full(reason: str) -> ServingError:
    return ServingError(
        Code.UNAVAILABLE, f"The batch scheduling queue to which this task was submitted is full; {reason}"
    )
