"""What the server costs: its latency above runs in process, its rate beside BentoML's, and how soon it is ready.

    python -m benchmarks.serving [--rounds 5] [--bentoml /venv/bin/python] [--write docs]

Client and server share the machine. Load comes from wrk and h2load (Debian: wrk, nghttp2-client). Candidates take
turns, so that what else the machine does falls on all of them; what is compared are medians of the rounds.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.layer import machine
from benchmarks.serving_load import Load, grpc_message, load_grpc, load_rest, rest_body
from benchmarks.serving_models import Sample, save_network, save_perceptron, save_photos
from benchmarks.serving_processes import (
    Running,
    bento_body,
    bentoml,
    free_ports,
    serving,
    wait_until_answered,
)
from serving.models.session import load

MODEL = "m"
BATCH = STREAMS = 32
SECONDS = 3.0  # of load from one client in a round
BATCHING = (
    f"max_batch_size {{ value: {BATCH} }} batch_timeout_micros {{ value: 0 }} num_batch_threads {{ value: 2 }} "
    "max_enqueued_batches { value: 100 }"
)
THREADS = ("--grpc_max_threads=64", "--rest_api_num_threads=64")  # a thread a request in flight, and some to spare

Measure = Callable[[], Load]
Rounds = dict[str, list[Load]]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bentoml", type=Path, help="the python of an environment with bentoml and tensorflow")
    parser.add_argument("--write", type=Path, help="the folder for serving_benchmark.md")
    arguments = parser.parse_args()
    missing = [name for name in ("wrk", "h2load") if not shutil.which(name)]
    if missing:
        parser.error(f"{' and '.join(missing)} must be installed: apt-get install wrk nghttp2-client")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [
            *alone(folder, arguments.rounds),
            *together(folder, arguments.rounds, arguments.bentoml),
            *readiness(folder, arguments.rounds),
        ]
    head = f"{machine()}; load average {os.getloadavg()[1]:.1f} over the last five minutes.\n\n"
    text = head + "| | measured | bar |\n|---|---|---|\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    print(text)
    if arguments.write:
        title = "# What the server costs\n\n`python -m benchmarks.serving`, "
        (arguments.write / "serving_benchmark.md").write_text(f"{title}{arguments.rounds} rounds.\n\n{text}")


def alone(folder: Path, rounds: int) -> Iterator[tuple[str, str, str]]:
    """One request at a time: what the way to the model and back adds."""
    photo, jpeg = save_photos(folder / "photos")
    small = save_perceptron(folder / "perceptron")
    with serving(small) as server:
        taken = in_turns(candidates(small, server), rounds)
    yield "784-256-10 over gRPC", above(taken, "gRPC"), "0.8 ms"
    yield "the same over REST, 16 kB of JSON", above(taken, "REST"), "0.8 ms"
    with serving(photo) as server:
        taken = in_turns(candidates(photo, server), rounds)
        encoded = in_turns(candidates(jpeg, server), rounds)
    yield "224x224x3 float32 over gRPC", above(taken, "gRPC"), "1.5 ms"
    rest = statistics.median(each.median for each in taken["REST"])
    yield "224x224x3 as JSON over REST, in all", f"{rest * 1e3:.1f} ms", "60 ms"
    yield "the same as JPEG in base64 over REST", above(encoded, "REST"), "2 ms"


def together(folder: Path, rounds: int, bento: Path | None) -> Iterator[tuple[str, str, str]]:
    """32 requests at a time of one image of 32x32 each, as one run where they are batched."""
    network = save_network(folder / "network")
    (folder / "batching").write_text(BATCHING)
    batched = ("--enable_batching", f"--batching_parameters_file={folder / 'batching'}")
    message, body = grpc_message(network, MODEL), rest_body(network)
    with contextlib.ExitStack() as stack:
        on = stack.enter_context(serving(network, *THREADS, *batched))
        off = stack.enter_context(serving(network, *THREADS))
        measures: dict[str, Measure] = {
            "in process": lambda: run_here(network, BATCH),
            "gRPC": lambda: load_grpc(on.grpc, message, STREAMS, round(SECONDS * 400)),
            "gRPC, not batched": lambda: load_grpc(off.grpc, message, STREAMS, round(SECONDS * 200)),
            "REST": lambda: load_rest(on.predict_url, body, STREAMS, SECONDS),
        }
        if bento is not None:
            url = stack.enter_context(bentoml(bento, network, BATCH, folder))
            measures["BentoML"] = lambda: load_rest(url, bento_body(network), STREAMS, SECONDS)
        taken = in_turns(measures, rounds)
        if on.failures() or off.failures():
            raise RuntimeError(f"{on.failures()} and {off.failures()} requests failed")
    yield "32 streams over gRPC, of batches of 32 in process", rates(taken, "gRPC", "in process"), "0.15, aim 0.3"
    yield "the same, of the server without batching", rates(taken, "gRPC", "gRPC, not batched"), "2"
    yield "32 streams over REST, of batches of 32 in process", rates(taken, "REST", "in process"), ""
    if "BentoML" not in taken:
        yield "the same, of BentoML", "not measured: --bentoml names no environment", "3"
        return
    yield "the same, of BentoML", rates(taken, "REST", "BentoML"), "3"
    ours, theirs = (statistics.median(each.p99 for each in taken[name]) for name in ("REST", "BentoML"))
    yield "99th percentile, and BentoML's", f"{ours * 1e3:.0f} ms, {theirs * 1e3:.0f} ms", "no worse"


def readiness(folder: Path, rounds: int) -> Iterator[tuple[str, str, str]]:
    """From the command to the first answer, beside what TensorFlow's import takes."""
    ratios, seconds = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL)
        imported = time.perf_counter() - start
        seconds.append(time_to_answer(folder / "perceptron"))
        ratios.append(seconds[-1] / imported)
    shown = f"{statistics.median(ratios):.2f} ({statistics.median(seconds):.1f} s)"
    yield "ready, of the time of `import tensorflow`", shown, "1.5"


def time_to_answer(base_path: Path) -> float:
    """Seconds from the start of a server to its first answer."""
    (port,) = free_ports(1)
    flags = ["--model_name=m", f"--model_base_path={base_path}", "--port=0", f"--rest_api_port={port}"]
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "serving", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until_answered(process, f"http://127.0.0.1:{port}/v1/models/m")
            return time.perf_counter() - start
        finally:
            process.terminate()


def candidates(sample: Sample, server: Running) -> dict[str, Measure]:
    """A stream of single requests: in this process, over gRPC, over REST."""
    message, body = grpc_message(sample, MODEL), rest_body(sample)
    return {
        "in process": lambda: run_here(sample, 1),
        "gRPC": lambda: load_grpc(server.grpc, message, 1, round(SECONDS * 300)),
        "REST": lambda: load_rest(server.predict_url, body, 1, SECONDS),
    }


def run_here(sample: Sample, batch: int) -> Load:
    """Runs the model as the server does, without the server."""
    model = load(sample.base_path / "1")
    inputs = {sample.input_name: np.repeat(sample.batch, batch, axis=0)}
    model.run(sample.signature_name, inputs)
    taken: list[float] = []
    while sum(taken) < SECONDS:
        start = time.perf_counter()
        model.run(sample.signature_name, inputs)
        taken.append(time.perf_counter() - start)
    model.close()
    return Load(batch * len(taken) / sum(taken), statistics.median(taken), float(np.quantile(taken, 0.99)))


def in_turns(measures: dict[str, Measure], rounds: int) -> Rounds:
    """The results of all rounds after one to warm up."""
    results: Rounds = {name: [] for name in measures}
    for turn in range(-1, rounds):
        for name, measure in measures.items():
            load = measure()
            if turn >= 0:
                results[name].append(load)
    return results


def above(rounds: Rounds, name: str) -> str:
    """By how much the median latency lies above that in process."""
    pairs = zip(rounds[name], rounds["in process"], strict=True)
    here = statistics.median(each.median for each in rounds["in process"])
    return f"{statistics.median(one.median - other.median for one, other in pairs) * 1e3:.2f} ms above {here * 1e3:.2f}"


def rates(rounds: Rounds, name: str, base: str) -> str:
    """The ratio of two rates, and the rates."""
    ratio = statistics.median(one.rate / other.rate for one, other in zip(rounds[name], rounds[base], strict=True))
    shown = [statistics.median(each.rate for each in rounds[which]) for which in (name, base)]
    return f"{ratio:.2f} ({shown[0]:.0f} to {shown[1]:.0f} a second)"


if __name__ == "__main__":
    main()
