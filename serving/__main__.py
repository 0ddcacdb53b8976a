"""`python -m serving`: flags, start, signals."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from serving import flags
from serving.errors import MissingPackageError, ServingError, needing
from serving.process import bind, notify, quiet_import, watchdog_interval

if TYPE_CHECKING:  # importing the server takes seconds, in which Ctrl-C must already work
    from collections.abc import Callable, Sequence
    from types import FrameType

    from serving.options import Options
    from serving.server import Server

START_UP_FAILURE = 255  # tensorflow_model_server returns -1
# The shell expects 130 of a program that Ctrl-C has ended; SIGTERM asks a service to end, which is no failure.
_EXIT_STATUSES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 0}


class Interruptions:
    """SIGINT and SIGTERM: the first one while serving ends `wait`, any other ends the process at once."""

    def __init__(self) -> None:
        self._caught: SimpleQueue[int] = SimpleQueue()  # may be filled by a handler that interrupts its own `get`
        self._waiting = False
        for number in _EXIT_STATUSES:
            signal.signal(number, self._handle)

    def wait(self, interval: float | None, sign: Callable[[], None]) -> int:
        """Waits for a signal and returns its exit status; calls `sign` once per interval, in seconds."""
        self._waiting = True
        while True:
            try:
                return _EXIT_STATUSES[self._caught.get(timeout=interval)]
            except Empty:
                sign()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Imports and loads cannot be unwound quietly, and have nothing to clean up.
        if not self._waiting:
            os._exit(_EXIT_STATUSES[number])
        self._waiting = False
        self._caught.put(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until a signal ends it. Returns the exit status."""
    interruptions = Interruptions()
    try:
        command_line = flags.parse(sys.argv[1:] if arguments is None else arguments)
    except flags.FlagError as error:
        print(flags.usage(), flush=True)
        print(error, file=sys.stderr)  # last, where it does not scroll away
        return START_UP_FAILURE
    flags.warn(command_line)
    if command_line.wants_help:
        print(flags.usage())
        return 0
    if command_line.wants_version:
        print(_versions())
        return 0
    return _serve(command_line.options, interruptions)


def _serve(options: Options, interruptions: Interruptions) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    try:
        _check(options)
        notify("STATUS=Loading the models")
        server = _start(options)
    except (ServingError, MissingPackageError) as error:
        reason = " ".join(str(error).split())
        print(f"Failed to start server. Error: {reason}", flush=True)
        return START_UP_FAILURE
    for line in server.addresses():
        print(line, flush=True)
    notify("READY=1", "STATUS=Serving")
    status = interruptions.wait(watchdog_interval(), lambda: notify("WATCHDOG=1"))
    notify("STOPPING=1", "STATUS=Answering the requests in flight")
    if not server.stop():
        os._exit(status)  # a run that does not end would keep its thread, and the thread the process
    return status


def _check(options: Options) -> None:
    """Raises ServingError for flags and ports that cannot work, before TensorFlow takes seconds to import."""
    options.check()
    for flag, port in (("port", options.port), ("rest_api_port", options.rest_api_port)):
        if port:
            bind(options.host, port, flag).close()


def _start(options: Options) -> Server:
    with needing("serving"), quiet_import():
        import prometheus_client
        import tensorflow as tf

        from serving.server import Server

        tf.config.list_physical_devices()  # looks for accelerators, and complains, here rather than later
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each
    # The objects of the imports stay: to search them for garbage would stall all requests for 0.2 s each time.
    gc.collect()
    gc.freeze()
    server = Server(options)
    server.start()
    return server


def _versions() -> str:
    own, runtime = (_version(name) for name in ("keras_prelu", "tensorflow"))
    return f"TensorFlow ModelServer: {own} (keras_prelu)\nTensorFlow Library: {runtime}"


def _version(distribution: str) -> str:
    from importlib import metadata  # slow, and rarely needed

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
