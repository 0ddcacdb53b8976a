"""Many requests -> one run (batching_session.cc).

    scheduler = BatchScheduler(from_message(parameters))   # one for the server: its threads are shared
    runner = BatchedRunner(scheduler, runner)               # one for each version, in place of what it wraps

Requests run together that feed and fetch the same tensors and whose rows have the same shape. TensorFlow Serving puts
rows of other shapes in the same batch, and fails all of it.
"""

import math
import queue
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from serving.batching.batch_queue import Batch, Task, queue_timeout
from serving.batching.options import BatchingOptions, from_message
from serving.batching.scheduler import BatchScheduler, Client, Key
from serving.batching.tensors import count_rows, merge, split
from serving.call import Call
from serving.errors import Code, ServingError

if TYPE_CHECKING:
    from serving.models.model import Runner

__all__ = ["BatchScheduler", "BatchedRunner", "BatchingOptions", "from_message"]


class BatchedRunner:
    """Runs several callers' requests at once with the runner that it wraps.

    `observe` is called for each run with the name of the thread pool, the rows of each request, the rows with the
    padding, and the seconds that each request waited. `close` closes what is wrapped, too.
    """

    def __init__(
        self,
        scheduler: BatchScheduler,
        runner: "Runner",
        options: BatchingOptions | None = None,
        observe: Callable[[str, Sequence[int], int, Sequence[float]], None] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._options = options or scheduler.options
        self._observe = observe
        self._client = Client(self._execute, self._options)

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], call: Call) -> list[np.ndarray]:
        """Waits for a run that includes this request; a request that its client has cancelled by then is left out.

        Raises what the run raises, and ServingError: INVALID_ARGUMENT for a request that cannot be batched, UNAVAILABLE
        where the queue is full, RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED where the time is up before or in the run.
        """
        names = tuple(sorted(fetches))
        key = Key(names, self._shapes(feeds))
        task = Task(feeds, count_rows(feeds), call)
        pieces = self._scheduler.submit(self._client, key, task)
        outputs = self._wait(key, pieces)
        if names == tuple(fetches):
            return outputs
        by_name = dict(zip(names, outputs, strict=True))
        return [by_name[name] for name in fetches]

    def close(self) -> None:
        """Refuses new requests, lets the old ones run, and gives the memory back."""
        self._scheduler.close_client(self._client)
        self._runner.close()

    def _shapes(self, feeds: Mapping[str, np.ndarray]) -> Hashable:
        if self._options.pad_variable_length_inputs:
            return tuple([(name, array.dtype, array.ndim) for name, array in feeds.items()])
        return tuple([(name, array.dtype, array.shape[1:]) for name, array in feeds.items()])

    def _wait(self, key: Key, pieces: list[Task]) -> list[np.ndarray]:
        if len(pieces) == 1:
            return self._wait_for_one(key, pieces[0])
        try:
            outputs = [self._wait_for_one(key, piece) for piece in pieces]
        except BaseException:
            for piece in pieces:
                self._scheduler.withdraw(self._client, key, piece)
            raise
        return [np.concatenate(arrays) for arrays in zip(*outputs, strict=True)]

    def _wait_for_one(self, key: Key, task: Task) -> list[np.ndarray]:
        try:
            return task.wait()
        except queue.Empty:
            if self._scheduler.withdraw(self._client, key, task):
                raise queue_timeout() from None
            raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification") from None

    def _execute(self, key: Key, batch: Batch) -> None:
        tasks, now = batch.tasks, time.monotonic()
        answers: Sequence[list[np.ndarray] | Exception]
        try:
            tasks = [task for task in tasks if not _dismiss(task, now)]
            answers = self._run_together(key.fetches, tasks, now) if tasks else []
        except Exception as error:
            answers = [error] * len(tasks)
        for task, answer in zip(tasks, answers, strict=True):
            task.answer(answer)

    def _run_together(self, fetches: Sequence[str], tasks: list[Task], now: float) -> list[list[np.ndarray]]:
        sizes = [task.size for task in tasks]
        size = self._options.padded_size(sum(sizes)) if any(sizes) else 0
        if self._observe is not None:
            waits = [now - task.enqueued for task in tasks]
            self._observe(self._scheduler.options.thread_pool_name, sizes, size, waits)
        feeds = merge([task.feeds for task in tasks], size, self._options.pad_variable_length_inputs)
        deadline = max(task.deadline for task in tasks)
        timeout = None if deadline == math.inf else deadline - now
        return split(self._runner.run(feeds, fetches, Call(timeout=timeout)), sizes, size)


def _dismiss(task: Task, now: float) -> bool:
    reason = task.given_up(now)
    if reason is not None:
        task.answer(reason)
    return reason is not None
