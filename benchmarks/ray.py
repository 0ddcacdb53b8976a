"""Measures what Ray's proxy costs: rates over gRPC of the embedded server, and of Ray with one and two replicas.

    python -m benchmarks.ray [--rounds 5] [--seconds 3] [--streams 8]

Client and servers share the machine. Load comes from h2load (Debian: nghttp2-client). The servers run side by side
and take turns, so that what else the machine does falls on all of them; medians of the rounds are compared.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.layer import machine
from benchmarks.serving import in_turns
from benchmarks.serving_load import Load, grpc_message, load_grpc
from benchmarks.serving_models import Sample, save_perceptron, save_photos
from benchmarks.serving_processes import serving

TARGET = 0.5  # of the embedded server's rate, with one replica
ENGINES = {
    "embedded": (),
    "ray, 1 replica": ("--engine=ray", "--host=0.0.0.0"),
    "ray, 2 replicas": ("--engine=ray", "--host=0.0.0.0", "--ray_min_replicas=2"),
}
_MODEL = "m"
_FIRST = 50  # requests from whose rate the number of a round's requests follows


def main() -> int:
    """Measures, prints, and returns 0 if the target is met for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load on a server in a round")
    parser.add_argument("--streams", type=int, default=8)
    arguments = parser.parse_args()
    if not shutil.which("h2load"):
        parser.error("h2load must be installed: apt-get install nghttp2-client")
    print(f"{machine()}; load average {os.getloadavg()[0]:.1f}; {arguments.streams} streams, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as name:
        photo, _ = save_photos(Path(name, "photos"))
        samples = {"784 floats": save_perceptron(Path(name, "perceptron")), "224x224x3 floats": photo}
        are_fast = [measure(*item, arguments) for item in samples.items()]
    return 0 if all(are_fast) else 1


def measure(name: str, sample: Sample, arguments: argparse.Namespace) -> bool:
    """Prints the rates for one model. Returns whether one replica is fast enough."""
    message = grpc_message(sample, _MODEL)
    with contextlib.ExitStack() as stack:
        ports = {engine: stack.enter_context(serving(sample, *flags)).grpc for engine, flags in ENGINES.items()}
        loads = {engine: _load(port, message, arguments) for engine, port in ports.items()}
        rounds = in_turns(loads, arguments.rounds)
    medians = {engine: statistics.median(load.rate for load in rounds[engine]) for engine in ENGINES}
    print(f"\n{name:<20}{'per second':>12}{'ratio':>8}{'median ms':>12}{'p99 ms':>10}")
    for engine, rate in medians.items():
        pairs = zip(rounds[engine], rounds["embedded"], strict=True)
        ratio = statistics.median(one.rate / other.rate for one, other in pairs)
        times = [
            1e3 * statistics.median(getattr(load, field) for load in rounds[engine]) for field in ("median", "p99")
        ]
        print(f"{engine:<20}{rate:12.0f}{ratio:8.2f}{times[0]:12.2f}{times[1]:10.2f}")
    return medians["ray, 1 replica"] >= TARGET * medians["embedded"]


def _load(port: int, message: bytes, arguments: argparse.Namespace) -> Callable[[], Load]:
    first = load_grpc(port, message, arguments.streams, max(_FIRST, arguments.streams))
    requests = max(arguments.streams, round(first.rate * arguments.seconds))
    return partial(load_grpc, port, message, arguments.streams, requests)


if __name__ == "__main__":
    sys.exit(main())
