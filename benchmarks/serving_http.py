"""HTTP servers for the REST API: uvicorn, the subclass of it that this project runs, and granian (pip install granian).

    python -m benchmarks.serving_http [--rounds 5] [--seconds 2]

Each server has a process of its own and serves images of 32x32x3 as JSON to wrk, with batching on: to a network of nine
convolutions, and to a model that only sums, so that the server is most of the cost. The servers take turns, so that
other load on the machine falls on all of them. The table has medians of the rounds: requests per second, and the CPU
time that the server's process takes per request.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf
import uvicorn

from benchmarks.layer import machine
from benchmarks.serving import BATCHING, MODEL, STREAMS
from benchmarks.serving_load import load_rest, rest_body
from benchmarks.serving_models import Sample, save_network
from benchmarks.serving_processes import free_ports, wait_until_answered
from serving.api.service import Service
from serving.options import Options
from serving.rest.app import RestApp, create_app
from serving.rest.asgi_server import AsgiServer
from training.export.signatures import save_model, signature

SERVERS = ("uvicorn", "subclass", "granian")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_http", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of load in a turn")
    parser.add_argument(
        "--serve", nargs=3, metavar=("SERVER", "FOLDER", "PORT"), help="for the processes of the servers"
    )
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    print(f"{machine()}; load average {os.getloadavg()[0]:.1f}\n")
    print("| model | streams | " + " | ".join(SERVERS) + " |\n|---|---|" + "---|" * len(SERVERS))
    with tempfile.TemporaryDirectory() as name:
        for sample in (save_sum(Path(name, "sum")), save_network(Path(name, "network"))):
            for streams, row in measure(sample, arguments).items():
                print(f"| {sample.base_path.name} | {streams} | " + " | ".join(row) + " |", flush=True)


def save_sum(base_path: Path) -> Sample:
    """A model whose run costs next to nothing."""
    run = signature(
        lambda images: {"sum": tf.reduce_sum(images, (1, 2, 3))}, "images", tf.TensorSpec([None, 32, 32, 3])
    )
    save_model(base_path / "1", {"serving_default": run}, [])
    example = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.float32)
    return Sample(base_path, "images", example)


def measure(sample: Sample, arguments: argparse.Namespace) -> dict[int, list[str]]:
    """Requests per second, and milliseconds of the server's CPU time per request, by the number of streams."""
    body, rows = rest_body(sample), {}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(running(name, sample)) for name in SERVERS}
        for streams in (1, STREAMS):
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
            for turn in range(-1, arguments.rounds):
                for name, (url, process) in servers.items():
                    before = sum(process.cpu_times()[:2])
                    rate = load_rest(url, body, streams, arguments.seconds).rate
                    cost = (sum(process.cpu_times()[:2]) - before) / (rate * arguments.seconds)
                    taken[name] += [(rate, cost * 1e3)] * (turn >= 0)
            medians = [[statistics.median(column) for column in zip(*taken[name], strict=True)] for name in servers]
            rows[streams] = [f"{rate:.0f}, {cost:.2f} ms" for rate, cost in medians]
    return rows


@contextlib.contextmanager
def running(name: str, sample: Sample) -> Iterator[tuple[str, psutil.Process]]:
    """A process with a server, and the address of its model."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.serving_http", "--serve", name, str(sample.base_path), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until_answered(process, f"http://127.0.0.1:{port}/v1/models/{MODEL}")
            yield f"http://127.0.0.1:{port}/v1/models/{MODEL}:predict", psutil.Process(process.pid)
        finally:
            process.kill()


def serve(name: str, base_path: str, port: str) -> None:
    """Serves a model until the process is killed."""
    batching = Path(base_path, "batching")
    batching.write_text(BATCHING)
    options = Options(
        model_name=MODEL,
        model_base_path=base_path,
        rest_api_num_threads=2 * STREAMS,
        enable_batching=True,
        batching_parameters_file=str(batching),
    )
    with Service(options) as service, create_app(service, options) as app:
        {"uvicorn": run_uvicorn, "subclass": run_subclass, "granian": run_granian}[name](app, int(port))


def run_uvicorn(app: RestApp, port: int) -> None:
    """Runs plain uvicorn."""
    uvicorn.run(app, port=port, log_config=None, access_log=False, lifespan="off", ws="none", proxy_headers=False)


def run_subclass(app: RestApp, port: int) -> None:
    """Runs the server of the REST API."""
    AsgiServer(app, socket.create_server(("127.0.0.1", port)), grace=0).start()
    threading.Event().wait()


def run_granian(app: RestApp, port: int) -> None:
    """Runs granian in this process, as the REST API would."""
    import uvloop
    from granian.constants import Interfaces
    from granian.server.embed import Server

    uvloop.run(Server(app, port=port, interface=Interfaces.ASGINL, log_enabled=False, websockets=False).serve())


if __name__ == "__main__":
    main()
