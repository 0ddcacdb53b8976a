"""CPU time of several candidates, each in a process of its own, measured in turns.

Turns spread what else the machine does over all of them alike, and a process each keeps one library's threads and
memory out of another's figures.
"""

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

Step = Callable[[], object]
Factory = Callable[[], Step]


@dataclass(frozen=True)
class Cost:
    """What one step took: CPU time of all threads and time on the clock in seconds, and the peak of memory in bytes.

    The peak counts from what the process held before its first step; what a step frees stays with the process, so
    that a later step's own peak would say nothing.
    """

    seconds: float
    peak_bytes: int
    clock_seconds: float = 0.0


def measure(factories: dict[str, Factory], rounds: int) -> dict[str, list[Cost]]:
    """The costs of so many steps of each candidate, after two to warm up."""
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(factory)) for name, factory in factories.items()}
        costs: dict[str, list[Cost]] = {name: [] for name in workers}
        for turn in range(-2, rounds):
            for name, worker in workers.items():
                worker.send("step")
                cost = worker.recv()
                if turn >= 0:
                    costs[name].append(cost)
    return costs


def time_ratios(costs: list[Cost], base: list[Cost]) -> list[float]:
    """The three quartiles, the median among them, of the CPU times' ratio within a round."""
    return statistics.quantiles((one.seconds / other.seconds for one, other in zip(costs, base, strict=True)), n=4)


def median_seconds(costs: list[Cost]) -> float:
    """Median CPU time of a step."""
    return statistics.median(cost.seconds for cost in costs)


def median_peak(costs: list[Cost]) -> float:
    """Median peak of memory of a step, in bytes."""
    return statistics.median(cost.peak_bytes for cost in costs)


@contextlib.contextmanager
def _worker(factory: Factory) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(factory, theirs), daemon=True)
    process.start()
    theirs.close()  # so that a worker that dies ends the wait for its answer
    ours.recv()
    try:
        yield ours
    finally:
        ours.close()
        process.join()


def _serve(factory: Factory, connection: Connection) -> None:
    step = factory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _resident_bytes("VmRSS")
    connection.send("ready")
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        start = time.process_time(), time.perf_counter()
        step()
        seconds, clock_seconds = time.process_time() - start[0], time.perf_counter() - start[1]
        connection.send(Cost(seconds, _resident_bytes("VmHWM") - before, clock_seconds))


def _resident_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
