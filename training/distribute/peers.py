"""The connections between the workers of a run, beside TensorFlow's own.

The workers agree on values over them, and each learns that another has ended: a connection closes when a process dies,
whatever killed it, so that the others end instead of waiting in a collective operation that can never finish; TCP's
keepalive finds a machine that is gone.
"""

import contextlib
import json
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import tensorflow as tf

from training.distribute.cluster import Cluster
from training.errors import LOST_WORKER_STATUS, InputError, LostWorkerError, StoppedError, TrainingError

_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # 30 s after which a machine counts as gone,
_KEEP_ALIVE |= {"TCP_USER_TIMEOUT": 30_000}  # also while something that was sent is not acknowledged
GRACE_SECONDS = 5  # for the main thread to leave what it is doing; TensorFlow itself wakes it, with noise, after 10
_CAUSE_SECONDS = 10  # within which one hears of the worker whose end made an operation fail


class Connection:
    """A connection to another worker: a JSON document a line, each way."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._lines = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, **message: Any) -> None:
        """Sends one message; nothing happens where the other worker is gone, which `receive` finds out."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None = None) -> Any:
        """Waits for one message, without end where `timeout` is None.

        Raises:
            OSError: The other worker is gone, or silent for too long.
            ValueError: What came is no message.
        """
        self._socket.settimeout(timeout)
        line = self._lines.readline()
        if not line:
            raise ConnectionResetError("the connection was closed")
        return json.loads(line)

    def keep_alive(self) -> None:
        """Makes `receive` fail after 30 seconds without a sign of the other machine."""
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):  # Linux has all of them
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def hang_up(self) -> None:
        """Ends it while another thread waits in `receive`, which fails there and on the other side."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Gives it back to the system."""
        self._lines.close()
        self._socket.close()


def end_process(line: str) -> None:
    """Ends this process at once, with one line: its main thread may be inside an operation that never returns."""
    os.write(2, f"training: {line}\n".encode())
    os._exit(LOST_WORKER_STATUS)


class Peers:
    """The other workers of a run, as this process sees them; none where it trains alone.

    As a context it covers the training: the workers leave it together, and where one fails the others raise
    LostWorkerError. One whose main thread does not come out of its operation within `GRACE_SECONDS` is ended there.

    Args:
        cluster: All workers, or None for a process that trains alone.
        connections: To each other worker for the chief, to the chief (0) for each other worker.
        end: Ends a process whose main thread hangs; called, in a thread, with the line that says why.
    """

    def __init__(
        self,
        cluster: Cluster | None = None,
        connections: Mapping[int, Connection] | None = None,
        end: Callable[[str], None] = end_process,
    ) -> None:
        self._cluster = cluster or Cluster(("this process",), 0)
        self._connections = dict(sorted((connections or {}).items()))
        self._values: dict[int, queue.SimpleQueue[Any]] = {index: queue.SimpleQueue() for index in self._connections}
        self._end = end
        self._asked_to_stop = False
        self._last_step: int | None = None
        self._loss = ""  # the line that says which worker has ended
        self._lost, self._left, self._reporting = threading.Event(), threading.Event(), threading.Lock()
        self.index = self._cluster.index  # 0 is the chief's
        self.is_chief = self.index == 0  # whether this worker writes the run's files
        for index, connection in self._connections.items():
            connection.keep_alive()
            threading.Thread(target=self._listen, args=(index, connection), daemon=True).start()

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in the workers' order; all must call it, and each waits for all.

        Args:
            value: What JSON can hold.

        Raises:
            LostWorkerError: A worker ends before it calls.
        """
        if not self.is_chief:
            self._connections[0].send(value=value)
            return self._receive(0)
        values = [value, *(self._receive(index) for index in self._connections)]
        self._tell_all(value=values)
        return values

    def stops(self, step: int, asked: bool) -> bool:
        """Whether all workers are to stop at this step; each must call it after every step, or call of several.

        No message is sent before a worker is asked to stop. It notifies the chief, which names the next step to all and
        continues when each has confirmed it: until then no worker can finish that step, for the chief takes part in it.

        Args:
            step: Steps that are done.
            asked: Whether this worker is asked to stop.
        """
        if asked and not self._asked_to_stop:
            self._asked_to_stop = True
            if not self.is_chief:
                self._connections[0].send(stop=True)
        if self.is_chief and self._asked_to_stop and self._last_step is None:
            self._last_step = step + bool(self._connections)
            self._tell_all(last_step=self._last_step)
            for index in self._connections:
                self._receive(index)
        return self._last_step is not None and step >= self._last_step

    def agree(self, what: str, value: Any) -> None:
        """Checks that all workers have one value; all must call it.

        Raises:
            InputError: They have not, on every worker.
        """
        values = self.gather(value)
        for index, other in enumerate(values):
            if other != values[0]:
                self._left.set()
                names = self._cluster.name(index), self._cluster.name(0)
                raise InputError(f"{what} is {other!r} on {names[0]}, but {values[0]!r} on {names[1]}")

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Runs its block on the chief, then on the others: for what the first one writes and all read."""
        if not self.is_chief:
            self.gather(None)
        yield
        if self.is_chief:
            self.gather(None)

    def __enter__(self) -> "Peers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._leave(error)
        finally:
            self._left.set()
            for connection in self._connections.values():
                connection.hang_up()

    def _leave(self, error: BaseException | None) -> None:
        if not self._connections or self._left.is_set():
            return
        if error is None or isinstance(error, StoppedError):
            self.gather(None)
            return
        if isinstance(error, tf.errors.OpError):  # a collective operation fails before its cause is known
            self._lost.wait(_CAUSE_SECONDS)
        if self._lost.is_set():
            if isinstance(error, (InputError, TrainingError)):
                return
            raise LostWorkerError(self._loss) from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        self._tell_all(ended=f"{self._cluster.name(self.index)} failed: {reason}")

    def _receive(self, index: int) -> Any:
        message = self._values[index].get()
        if "ended" in message:
            raise LostWorkerError(self._loss)
        return message["value"]

    def _listen(self, index: int, connection: Connection) -> None:
        """Takes in what a worker says, until it ends."""
        while True:
            try:
                message = connection.receive()
            except (OSError, ValueError):
                cause = "its process has ended, or its machine cannot be reached"
                message = {"ended": f"{self._cluster.name(index)} is gone: {cause}"}
            if "ended" in message:
                break
            if "stop" in message:
                self._asked_to_stop = True
            elif "last_step" in message:
                self._last_step = message["last_step"]
                connection.send(value=None)
            else:
                self._values[index].put(message)
        self._report(message["ended"])
        connection.close()

    def _report(self, line: str) -> None:
        with self._reporting:
            if self._loss or self._left.is_set():
                return
            self._loss = line
        self._tell_all(ended=line)  # before the main thread hears of it, which may hang up
        self._lost.set()
        for waiting in self._values.values():
            waiting.put({"ended": line})
        if not self._left.wait(GRACE_SECONDS):
            self._end(line)

    def _tell_all(self, **message: Any) -> None:
        for connection in self._connections.values():
            connection.send(**message)
