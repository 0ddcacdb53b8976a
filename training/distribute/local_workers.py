"""Runs several workers on this machine: one process each, joined logs, all ended when one fails."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from training.errors import LOST_WORKER_STATUS, InputError

# For the other workers to end once one has failed: by themselves, as they do when they have met; then by SIGTERM.
LEAVE_SECONDS = 7
GRACE_SECONDS = 20
_LOOK_SECONDS = 0.05
_CLEAR_LINE = b"\r\x1b[K"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


def run_local_workers(num_workers: int, argv: Sequence[str]) -> int:
    """Runs `python -m training ARGV` as several workers of one cluster on this machine, and waits for them.

    The chief has this process's streams; what the others print goes to standard error behind `worker 1: `. SIGINT and
    SIGTERM are passed on and the workers waited for; a second one kills them. When this process is killed, Linux kills
    the workers.

    Args:
        num_workers: How many processes.
        argv: The command line, without what asks for local workers.

    Returns:
        0 where all ended well, else the status of the worker that failed.

    Raises:
        InputError: TF_CONFIG names a cluster already, or fewer than one worker is asked for.
    """
    if num_workers < 1:
        raise InputError(f"local_workers is {num_workers}, but must be at least 1")
    if os.environ.get("TF_CONFIG"):
        raise InputError("TF_CONFIG names a cluster already, and local_workers would make another: drop one of them")
    return run_workers(num_workers, [sys.executable, "-m", "training", *argv])


def run_workers(num_workers: int, command: Sequence[str]) -> int:
    """Runs any command as `run_local_workers` does."""
    due: list[tuple[float, int]] = []  # when to send which signal to the workers that run
    with _passed_on(due) as asked, _reserved_addresses(num_workers) as addresses:
        workers = [_start(command, addresses, index) for index in range(num_workers)]
        logs = [threading.Thread(target=_join_log, args=each, daemon=True) for each in enumerate(workers) if each[0]]
        for log in logs:
            log.start()
        failed = _watch(workers, due, asked)
        for log in logs:
            log.join(timeout=5)  # a process that a worker left behind may hold the pipe
    if not failed:
        return 0
    worker, status = next((each for each in failed if each[1] != LOST_WORKER_STATUS), failed[0])
    if not asked:
        print(f"training: worker {worker} ended with status {status}", file=sys.stderr)
    return status


def _start(command: Sequence[str], addresses: Sequence[str], index: int) -> subprocess.Popen[bytes]:
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    return subprocess.Popen(
        command,
        # Unbuffered, the chief would write a line and its end apart, and another worker's line might come between.
        env={**os.environ, "TF_CONFIG": json.dumps(config), "PYTHONUNBUFFERED": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if index else None,
        stderr=subprocess.STDOUT if index else None,
        process_group=0,  # so that a terminal's Ctrl-C reaches it once, passed on by the parent
        preexec_fn=end_with(os.getpid()),
    )


def _watch(
    workers: Sequence[subprocess.Popen[bytes]], due: list[tuple[float, int]], asked: list[int]
) -> list[tuple[int, int]]:
    """Waits until all workers have ended; the indexes and statuses, as shells have them, of those that failed."""
    running, failed = dict(enumerate(workers)), list[tuple[int, int]]()
    while running:
        time.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        for index in [index for index, worker in running.items() if worker.poll() is not None]:
            code = running.pop(index).returncode
            if code and not failed and not asked:
                due += [(now + LEAVE_SECONDS, signal.SIGTERM), (now + GRACE_SECONDS, signal.SIGKILL)]
            if code:
                failed.append((index, code if code > 0 else 128 - code))
        for order in [order for order in due if order[0] <= now]:
            due.remove(order)
            for worker in running.values():
                worker.send_signal(order[1])
    return failed


@contextlib.contextmanager
def _passed_on(due: list[tuple[float, int]]) -> Iterator[list[int]]:
    """Passes SIGINT and SIGTERM on, and SIGKILL in place of a second one; yields those that have come."""
    asked: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        due.append((0.0, signal.SIGKILL if asked else number))
        asked.append(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _reserved_addresses(count: int) -> Iterator[list[str]]:
    """Loopback addresses whose ports the system gives to nobody else while the block runs.

    They are bound and never listen, which lets the workers, whose sockets allow addresses to be reused, take them.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def end_with(parent: int) -> Callable[[], None] | None:
    """The function that a child calls before it becomes the command, so that Linux kills it when its parent dies."""
    if sys.platform != "linux":  # elsewhere a worker ends when it next prints, for nobody reads it any more
        return None
    prctl = ctypes.CDLL(None).prctl

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return set_death_signal


def _join_log(index: int, worker: subprocess.Popen[bytes]) -> None:
    """Prints a worker's lines; of a line that was written over, as a bar's, its last form."""
    source: IO[bytes] | None = worker.stdout
    assert source is not None
    clear = _CLEAR_LINE if sys.stderr.isatty() else b""
    with source, contextlib.suppress(BrokenPipeError):  # where nobody reads, the worker shall not wait for ever
        for line in source:
            os.write(2, clear + f"worker {index}: ".encode() + line.rstrip(b"\r\n").rpartition(b"\r")[2] + b"\n")
