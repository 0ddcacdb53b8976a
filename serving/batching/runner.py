"""Runs the requests of several callers together (batching_session.cc).

    scheduler = BatchScheduler(from_message(parameters))           # one per server: its threads are shared
    runner = BatchedRunner(scheduler, runner, scheduler.options)   # one per version, around its runner

Requests run together that feed and fetch the same tensors and whose rows have the same shape. TensorFlow Serving puts
rows of other shapes in the same batch, and fails all of it.
"""

import itertools
import math
import queue
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from serving.batching.batch_queue import Batch, Task, queue_timeout
from serving.batching.options import BatchingOptions
from serving.batching.scheduler import BatchScheduler, Client, Key
from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument
from serving.models.model import Runner

Feeds = Mapping[str, np.ndarray]


class BatchedRunner:
    """Runs several callers' requests at once with the runner that it wraps.

    `observe` is called for each run with the name of the thread pool, the rows of each request, the rows with the
    padding, and the seconds that each request waited. `close` closes the wrapped runner, too.
    """

    def __init__(
        self,
        scheduler: BatchScheduler,
        runner: Runner,
        options: BatchingOptions,
        observe: Callable[[str, Sequence[int], int, Sequence[float]], None] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._options = options
        self._observe = observe
        self._client = Client(self._execute, options)
        self._fill: float | None = None

    def fill(self) -> float | None:
        """Rows of the last run, without the padding, over the most that a run may have; None before the first run."""
        return self._fill

    def run(self, feeds: Feeds, fetches: Sequence[str], call: Call) -> list[np.ndarray]:
        """Waits for a run that includes this request; a request that its client has cancelled by then is left out.

        Raises what the run raises, and ServingError: INVALID_ARGUMENT for a request that cannot be batched, UNAVAILABLE
        if the queue is full, RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED if the time is up before or in the run.
        """
        names = tuple(sorted(fetches))
        key = Key(names, self._shapes(feeds))
        pieces = self._scheduler.submit(self._client, key, Task(feeds, _num_rows(feeds), call))
        outputs = dict(zip(names, self._wait(key, pieces), strict=True))
        return [outputs[name] for name in fetches]

    def close(self) -> None:
        """Refuses new requests, lets the old ones run, and frees the memory."""
        self._scheduler.close_client(self._client)
        self._runner.close()

    def _shapes(self, feeds: Feeds) -> Hashable:
        pads = self._options.pad_variable_length_inputs
        return tuple([(name, each.dtype, each.ndim if pads else each.shape[1:]) for name, each in feeds.items()])

    def _wait(self, key: Key, pieces: list[Task]) -> list[np.ndarray]:
        try:
            outputs = [self._wait_for_one(key, piece) for piece in pieces]
        except BaseException:
            for piece in pieces:
                self._scheduler.withdraw(self._client, key, piece)
            raise
        return outputs[0] if len(pieces) == 1 else [np.concatenate(arrays) for arrays in zip(*outputs, strict=True)]

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
            tasks = [task for task in tasks if not task.gives_up(now)]
            answers = self._run_together(key.fetches, tasks, now) if tasks else []
        except Exception as error:
            answers = [error] * len(tasks)
        for task, answer in zip(tasks, answers, strict=True):
            task.answer(answer)

    def _run_together(self, fetches: Sequence[str], tasks: list[Task], now: float) -> list[list[np.ndarray]]:
        sizes = [task.size for task in tasks]
        size = self._options.padded_size(sum(sizes)) if any(sizes) else 0
        self._fill = sum(sizes) / self._options.largest_run
        if self._observe is not None:
            waits = [now - task.enqueued for task in tasks]
            self._observe(self._scheduler.options.thread_pool_name, sizes, size, waits)
        feeds = _merge([task.feeds for task in tasks], size, self._options.pad_variable_length_inputs)
        deadline = max(task.deadline for task in tasks)
        timeout = None if deadline == math.inf else deadline - now
        return _split(self._runner.run(feeds, fetches, Call(timeout=timeout)), sizes, size)


def _num_rows(feeds: Feeds) -> int:
    """The size of dimension 0, which all inputs must share. Raises ServingError if they do not."""
    sizes = set()
    for array in feeds.values():
        if array.ndim == 0:
            raise invalid_argument("Batching Run() input tensors must have at least one dimension")
        sizes.add(len(array))
    if not sizes:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    if len(sizes) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def _merge(requests: Sequence[Feeds], size: int, pads_shapes: bool) -> Feeds:
    """The rows of all requests in their order, filled up to a size with the first row of the last request."""
    merged = {}
    for name in requests[0]:
        arrays = [each[name] for each in requests]
        if pads_shapes and len(arrays) > 1:
            inner = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
            arrays = [_padded(array, inner) for array in arrays]
        missing = size - sum(map(len, arrays))
        if missing:
            last = next(array for array in reversed(arrays) if len(array))
            arrays.append(np.repeat(last[:1], missing, axis=0))
        merged[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return merged


def _padded(array: np.ndarray, inner: tuple[int, ...]) -> np.ndarray:
    if array.shape[1:] == inner:
        return array
    zero = b"" if array.dtype.kind == "O" else 0
    padded = np.full((len(array), *inner), zero, array.dtype)
    padded[tuple(map(slice, array.shape))] = array
    return padded


def _split(outputs: Sequence[np.ndarray], sizes: Sequence[int], size: int) -> list[list[np.ndarray]]:
    """Each request's rows of the outputs of a run of `size` rows, without those that filled the run up.

    Raises ServingError if the outputs have other rows than the run.
    """
    for output in outputs:
        if output.ndim == 0:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(output) != size:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                "input tensors",
            )
    ends = itertools.accumulate(sizes)
    return [[output[end - rows : end] for output in outputs] for rows, end in zip(sizes, ends, strict=True)]
