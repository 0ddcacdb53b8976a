"""What requests to a model feel while versions of it load: the 99th percentile with loads against without, in turns.

    python -m benchmarks.serving_loading [--rounds 5] [--loads 4] [--megabytes 0] [--cold] [-- flags of the server]

Each version carries warm-up requests, as exports do; without them (`--cold`) the first request to each version pays for
what the runtime then does once. Each round also asks while a process that has nothing to do with the server computes at
the priority of loads, which is what any work costs on that machine. Also the server's memory after each round.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.layer import machine
from benchmarks.serving_models import Sample, save_network
from benchmarks.serving_processes import Running, serving
from serving.client import Client
from training.export.signatures import write_warmup_requests

BAR = 1.5  # of the 99th percentile without loads
_BACKGROUND = 10  # nice's, as of the threads that load
_MODEL = "m"
_LOOK = 0.1  # seconds between looks at whether a version is there, which are requests themselves


def main() -> int:
    """Measures, prints, and returns 0 where the bar holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_loading", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loads", type=int, default=4, help="versions that load in turn in each round")
    parser.add_argument("--streams", type=int, default=1, help="requests at a time")
    parser.add_argument("--megabytes", type=int, default=0, help="of variables that each version has beside its own")
    parser.add_argument("--cold", action="store_true", help="versions without warm-up requests")
    parser.add_argument("flags", nargs="*", help="for the server")
    arguments = parser.parse_args()
    print(f"{machine()}; load average {os.getloadavg()[0]:.1f}; {arguments.streams} streams")
    with tempfile.TemporaryDirectory() as name:
        sample = save(Path(name, "model"), arguments)
        shutil.copytree(sample.base_path / "1", Path(name, "template"))
        flags = ("--file_system_poll_wait_seconds=0.1", *arguments.flags)
        rounds = []
        with serving(sample, *flags) as server:
            for number in range(arguments.rounds + 1):
                rounds.append(measure(server, sample, Path(name, "template"), arguments, number))
                print(f"after {(number + 1) * arguments.loads} loads: {server.resident_bytes() / 2**20:.0f} MiB")
    phases = dict(zip(("alone", "while versions load", "beside a process"), zip(*rounds[1:], strict=True), strict=True))
    for phase, times in phases.items():
        median, slow, longest = (
            statistics.median(np.percentile(each, percent) for each in times) * 1e3 for percent in (50, 99, 100)
        )
        print(
            f"{phase:<20} median {median:6.2f} ms, 99th percentile {slow:6.2f} ms, longest {longest:6.2f} ms; "
            f"{slowdown(phases['alone'], times):.2f} times the 99th percentile alone"
        )
    return 0 if slowdown(phases["alone"], phases["while versions load"]) <= BAR else 1


def slowdown(quiet: Sequence[Sequence[float]], busy: Sequence[Sequence[float]]) -> float:
    """The ratio of the 99th percentiles, as the median of rounds."""
    pairs = zip(quiet, busy, strict=True)
    return float(statistics.median(np.percentile(times, 99) / np.percentile(alone, 99) for alone, times in pairs))


def save(base_path: Path, arguments: argparse.Namespace) -> Sample:
    """A small convolutional network, as `training export` writes it."""
    sample = save_network(base_path, arguments.megabytes)
    if not arguments.cold:
        pixels = sample.example
        encoded = tf.io.encode_jpeg(tf.cast(pixels, tf.uint8)).numpy()
        extra = base_path / "1" / "assets.extra"
        extra.mkdir()
        write_warmup_requests(extra / "tf_serving_warmup_requests", encoded, pixels, dense=False)
    return sample


def measure(
    server: Running, sample: Sample, template: Path, arguments: argparse.Namespace, number: int
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of requests: alone, while so many versions load one after the other, beside another process."""
    first = 2 + number * arguments.loads
    versions = range(first, first + arguments.loads)
    for version in versions:
        shutil.copytree(template, template.with_name(str(version)))

    def load() -> None:
        with Client(f"grpc://127.0.0.1:{server.grpc}", _MODEL) as client:
            for version in versions:
                template.with_name(str(version)).rename(sample.base_path / str(version))
                while client.status()[0].version < version or client.status()[0].state.name != "AVAILABLE":
                    time.sleep(_LOOK)

    loading, seconds = ask_during(server, sample, arguments.streams, load)
    quiet, _ = ask_during(server, sample, arguments.streams, lambda: time.sleep(seconds))
    with low_priority_process():
        beside, _ = ask_during(server, sample, arguments.streams, lambda: time.sleep(seconds))
    return quiet, loading, beside


@contextmanager
def low_priority_process() -> Iterator[None]:
    """A process that computes at the priority of loads, and has nothing to do with the server."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=lambda: os.nice(_BACKGROUND))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ask_during(server: Running, sample: Sample, streams: int, work: Callable[[], None]) -> tuple[list[float], float]:
    """Seconds of each request that was made during some work, and how long that took."""
    times: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(f"grpc://127.0.0.1:{server.grpc}", _MODEL) as client:
            while not stop.is_set():
                started = time.perf_counter()
                client.predict({sample.input_name: sample.batch})
                times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=ask) for _ in range(streams)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - started
        stop.set()
        for thread in threads:
            thread.join()
    return times, seconds


if __name__ == "__main__":
    raise SystemExit(main())
