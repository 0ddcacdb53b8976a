"""The part that both stand-ins share: they record their call, listen, and answer as a server whose model is loaded.

STAND_IN_RECORD names the file for the record. STAND_IN_STATUS is the status after SIGTERM, or else that of the signal.
STAND_IN_ENDS ends it at once with that status, or by a signal if it is negative. GET /end ends it with status 3.
"""

import http.server
import json
import os
import pathlib
import signal
import sys
import threading


def run(addresses, name):
    record = pathlib.Path(os.environ["STAND_IN_RECORD"])
    called = {"arguments": sys.argv[1:], "environment": dict(os.environ), "pid": os.getpid()}
    record.with_suffix(".part").write_text(json.dumps(called))
    record.with_suffix(".part").rename(record)
    if "STAND_IN_ENDS" in os.environ:
        end(int(os.environ["STAND_IN_ENDS"]))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "STAND_IN_STATUS" in os.environ:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(int(os.environ["STAND_IN_STATUS"])))
    for address in addresses:
        threading.Thread(target=http.server.HTTPServer(address, handler(name)).serve_forever).start()
    threading.Event().wait()


def end(status):
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


def handler(name):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == f"/v1/models/{name}" else 404)
            self.end_headers()
            if self.path == "/end":
                os._exit(3)

        def log_message(self, *_):
            pass

    return Handler


def flags(arguments, name):
    return [each.partition("=")[2] for each in arguments if each.startswith(f"--{name}=")]
