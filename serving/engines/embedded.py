"""The server of this package, in this process."""

from __future__ import annotations

import gc
import logging
import os
from typing import TYPE_CHECKING, TextIO

from serving import flags
from serving.errors import needing
from serving.process import Interruptions, check_ports, notify, quiet_import, watchdog_interval

if TYPE_CHECKING:  # importing the server takes seconds, in which Ctrl-C must already work
    from serving.options import Options
    from serving.server import Server


def serve(command_line: flags.CommandLine, interruptions: Interruptions) -> int:
    """Serves until a signal ends it. Returns the exit status. Raises ServingError if the server cannot start."""
    flags.warn_of_ignored(command_line)
    set_up_logging()
    command_line.options.check()
    check_ports(command_line.options)
    notify("STATUS=Loading the models")
    server = _start(command_line.options)
    for line in (*server.addresses(), *server.invitations()):
        print(line, flush=True)
    notify("READY=1", "STATUS=Serving")
    status = interruptions.wait(watchdog_interval(), lambda: notify("WATCHDOG=1"))
    notify("STOPPING=1", "STATUS=Answering the requests in flight")
    if not server.stop():
        os._exit(status)  # a run that does not end would keep its thread, and the thread the process
    return status


def prepare() -> None:
    """Imports the server and its packages quietly, and keeps their objects out of the garbage collector's way."""
    with needing("serving"), quiet_import():
        import prometheus_client
        import tensorflow as tf

        import serving.server  # noqa: F401

        tf.config.list_physical_devices()  # looks for accelerators, and complains, here rather than later
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each
    # The objects of the imports stay: to search them for garbage would stall all requests for 0.2 s each time.
    gc.collect()
    gc.freeze()


def set_up_logging(stream: TextIO | None = None) -> None:
    """Writes the server's log to a stream, standard error by default."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=stream)
    logging.getLogger("serving").setLevel(logging.INFO)


def _start(options: Options) -> Server:
    prepare()
    from serving.server import Server

    server = Server(options)
    server.start()
    return server
