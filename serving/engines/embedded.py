"""The server of this package, in this process."""

from __future__ import annotations

import gc
import logging
import os
from typing import TYPE_CHECKING

from serving import flags
from serving.errors import needing
from serving.process import Interruptions, check_ports, notify, quiet_import, watchdog_interval

if TYPE_CHECKING:  # importing the server takes seconds, in which Ctrl-C must already work
    from serving.options import Options
    from serving.server import Server


def serve(command_line: flags.CommandLine, interruptions: Interruptions) -> int:
    """Serves until a signal ends it. Returns the exit status. Raises ServingError if the server cannot start."""
    flags.warn_of_ignored(command_line)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    command_line.options.check()
    check_ports(command_line.options)
    notify("STATUS=Loading the models")
    server = _start(command_line.options)
    for line in server.addresses():
        print(line, flush=True)
    notify("READY=1", "STATUS=Serving")
    status = interruptions.wait(watchdog_interval(), lambda: notify("WATCHDOG=1"))
    notify("STOPPING=1", "STATUS=Answering the requests in flight")
    if not server.stop():
        os._exit(status)  # a run that does not end would keep its thread, and the thread the process
    return status


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
