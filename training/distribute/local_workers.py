"""Several workers on this machine: a process each, their logs joined, all ended when one fails.

TensorFlow is not imported here: the parent has nothing to do but to watch.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from training.distribute.peers import STATUS as STATUS_AFTER_ANOTHER
from training.errors import InputError

# For the other workers to end once one has failed: by themselves, as they do when they have met; then by SIGTERM.
LEAVE_SECONDS = 7
GRACE_SECONDS = 20
_CLEAR_LINE = b"\r\x1b[K"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


def run_local_workers(num_workers: int, argv: Sequence[str]) -> int:
    """Runs `python -m training ARGV` as several workers of one cluster on this machine, and waits for them.

    The chief's lines appear as they are, the others' behind `worker 1: `. SIGINT and SIGTERM are passed on and the
    workers waited for; a second one kills them. When this process is killed, Linux kills the workers.

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
    events: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()  # its put may interrupt itself, as signals do
    with _signals_to(lambda number: events.put(("signal", number))), _reserved_addresses(num_workers) as addresses:
        workers = [_Worker(command, addresses, index) for index in range(num_workers)]
        for worker in workers:
            threading.Thread(target=worker.wait, args=(events,), daemon=True).start()
        return _Watch(workers, events).until_all_ended()


class _Worker:
    """One worker's process; what it prints goes to the parent's streams, line by line."""

    def __init__(self, command: Sequence[str], addresses: Sequence[str], index: int) -> None:
        self.index = index
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        streams = [sys.stdout, sys.stderr]
        # A terminal is the chief's own: its progress bar asks whether it writes to one.
        pipes = [None if index == 0 and stream.isatty() else subprocess.PIPE for stream in streams]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "TF_CONFIG": json.dumps(config), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=pipes[0],
            stderr=pipes[1],
            process_group=0,  # so that a terminal's Ctrl-C reaches it once, passed on by the parent
            preexec_fn=_end_with(os.getpid()),
        )
        prefix = f"worker {index}: ".encode() if index else b""
        self._logs = [
            threading.Thread(target=_join_log, args=(source, stream.buffer, prefix), daemon=True)
            for source, stream in zip((self._process.stdout, self._process.stderr), streams, strict=True)
            if source
        ]

    @property
    def status(self) -> int | None:
        """Its exit status, as shells have it; None while it runs."""
        code = self._process.returncode
        return code if code is None or code >= 0 else 128 - code

    def send(self, number: int) -> None:
        """Sends it a signal, if it runs."""
        self._process.send_signal(number)

    def wait(self, events: "queue.SimpleQueue[tuple[str, int]]") -> None:
        """Shows what it prints until it ends, and puts ("ended", index) among the events."""
        for log in self._logs:
            log.start()
        self._process.wait()
        for log in self._logs:
            log.join(timeout=5)  # a process that it left behind may hold the pipe
        events.put(("ended", self.index))


class _Watch:
    """Waits for workers, and ends them all when one fails."""

    def __init__(self, workers: Sequence[_Worker], events: "queue.SimpleQueue[tuple[str, int]]") -> None:
        self._workers = workers
        self._events = events
        self._running = {worker.index for worker in workers}
        self._failed: list[_Worker] = []
        self._signalled = False
        self._due: list[tuple[float, int]] = []  # what ends those that are left, and when

    def until_all_ended(self) -> int:
        """Returns the status of all workers together."""
        while self._running:
            left = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            try:
                event, value = self._events.get(timeout=left)
            except queue.Empty:
                self._send(self._due.pop(0)[1])
                continue
            if event == "signal":
                self._send(signal.SIGKILL if self._signalled else value)
                self._signalled = True
            else:
                self._running.discard(value)
                self._judge(self._workers[value])
        return self._verdict()

    def _judge(self, worker: _Worker) -> None:
        if worker.status == 0:
            return
        self._failed.append(worker)
        if len(self._failed) == 1 and not self._signalled:
            now = time.monotonic()
            self._due = [(now + LEAVE_SECONDS, signal.SIGTERM), (now + GRACE_SECONDS, signal.SIGKILL)]

    def _verdict(self) -> int:
        if not self._failed:
            return 0
        worker = (self._causes() or self._failed)[0]
        if not self._signalled:
            _write_line(
                sys.stderr.buffer, f"training: worker {worker.index} ended with status {worker.status}".encode()
            )
        assert worker.status is not None
        return worker.status

    def _causes(self) -> list[_Worker]:
        return [worker for worker in self._failed if worker.status != STATUS_AFTER_ANOTHER]

    def _send(self, number: int) -> None:
        for index in self._running:
            self._workers[index].send(number)


@contextlib.contextmanager
def _signals_to(handle: Callable[[int], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: handle(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
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


def _end_with(parent: int) -> Callable[[], None] | None:
    """What a child calls before it becomes the command, so that it is killed when its parent dies.

    Only Linux has it. Elsewhere a worker ends when it next prints, for nobody reads it any more.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return set_death_signal


def _join_log(source: Any, target: BinaryIO, prefix: bytes) -> None:
    with source, contextlib.suppress(BrokenPipeError):  # where nobody reads, the worker shall not wait for ever
        for line in source:
            _write_line(target, prefix + line.rstrip(b"\r\n").rpartition(b"\r")[2])


_writing = threading.Lock()


def _write_line(target: BinaryIO, line: bytes) -> None:
    with _writing:
        target.write((_CLEAR_LINE if target.isatty() else b"") + line + b"\n")
        target.flush()
