"""`keras-prelu batch`: runs that are killed, and the rate and memory of a run.

    python -m benchmarks.batch kills [--images 10000] [--kills 20] [--seed 0]
    python -m benchmarks.batch rate [--images 2000] [--rounds 5]

`kills` kills runs (SIGKILL) at random moments while they write, and compares the parts, byte by byte, with those of a
run left alone.
`rate` compares a run with a bare loop over the same model and images, in turns, and its memory with that of the server
that gets the same images in batches of the same size, over gRPC by two threads.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pyarrow.dataset
from PIL import Image

from benchmarks.interleaved import Step, measure
from benchmarks.layer import machine
from benchmarks.serving_models import Sample, save_network
from benchmarks.serving_processes import serving
from serving.batch import command
from serving.batch.inputs import find_files, make_parts
from serving.batch.job import Job
from serving.batch.part_writer import PartWriter
from serving.client import Client
from serving.models.session import load

BATCH = 32
PART = 500
SIGNATURE = "image_bytes"
FLAGS = (f"--batch_size={BATCH}", f"--part_rows={PART}", f"--signature={SIGNATURE}")


def main() -> int:
    """Measures and prints; the exit status of `kills` is 0 if no row was lost or doubled and the bytes are the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("what", choices=("kills", "rate"))
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export = save_network(folder / "model").base_path
        if arguments.what == "kills":
            images = save_images(folder / "images", arguments.images or 10_000)
            return run_kills(export, images, folder, arguments.kills, arguments.seed)
        run_rate(export, save_images(folder / "images", arguments.images or 2000), folder, arguments.rounds)
    return 0


def save_images(folder: Path, count: int) -> Path:
    """JPEGs of 32x32 random pixels, in folders of a thousand."""
    random_pixels = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_pixels.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return folder


def run_kills(export: Path, images: Path, folder: Path, kills: int, seed: int) -> int:
    """Kills, resumes, compares, prints."""
    moments = random.Random(seed)
    killed, alone = folder / "killed", folder / "alone"
    alone_parts = finish(export, images, alone)
    written = sorted(path.stat().st_mtime for path in parts_of(alone))
    per_part = (written[-1] - written[0]) / (len(written) - 1)
    for kill in range(1, kills + 1):
        with running(export, images, killed) as process:
            wait_for_parts(len(parts_of(killed)) + moments.randint(0, 1), killed, process)
            time.sleep(moments.uniform(0, per_part))
            was_alive = process.is_alive()
        state = f"{len(parts_of(killed))} parts, {len(list(killed.glob('.unfinished-*')))} half written"
        print(f"kill {kill}: {state}{'' if was_alive else ' (the run was over)'}", flush=True)
    killed_parts = finish(export, images, killed)
    ids = pyarrow.dataset.dataset(killed).to_table(columns=["id"])["id"].to_pylist()
    wanted = {str(path) for path in images.rglob("*.jpg")}
    lost, doubled = len(wanted - set(ids)), len(ids) - len(set(ids))
    same = killed_parts == alone_parts
    found = f"{lost} lost, {doubled} doubled; {'the same' if same else 'OTHER'} bytes"
    print(f"{kills} kills over {len(wanted):,} images: {found}")
    return 0 if same and not lost and not doubled else 1


@contextlib.contextmanager
def running(export: Path, images: Path, output: Path, flags: Sequence[str] = FLAGS) -> Iterator[ForkServerProcess]:
    """A process that runs the command, forked from one that has imported TensorFlow. It is killed after the block.

    What it prints goes to a `.log` beside the output.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "serving.batch.run"])
    process = context.Process(target=_run, args=(export, images, output, flags))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def wait_for_parts(count: int, output: Path, process: ForkServerProcess) -> None:
    """Waits until a run that has just been started has as many parts and has begun another, or is over."""
    started = time.time()
    while process.is_alive():
        with contextlib.suppress(FileNotFoundError):  # the part is whole now
            begun = any(path.stat().st_mtime > started for path in output.glob(".unfinished-*"))
            if begun and len(parts_of(output)) >= count:
                return
        time.sleep(0.01)


def finish(export: Path, images: Path, output: Path) -> dict[str, bytes]:
    """Runs the command to its end. Returns the bytes of the parts and of the manifest."""
    with running(export, images, output) as process:
        process.join()
        assert process.exitcode == 0, output.with_suffix(".log").read_text()
    return {path.name: path.read_bytes() for path in [*parts_of(output), output / "_manifest.json"]}


def parts_of(output: Path) -> list[Path]:
    """The parts that are there."""
    return sorted(output.glob("part-*"))


def _run(export: Path, images: Path, output: Path, flags: Sequence[str]) -> None:
    log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os._exit(command.main([str(export), str(images), f"--output={output}", *flags]))


def run_rate(export: Path, images: Path, folder: Path, rounds: int) -> None:
    """Measures and prints rates and peaks of memory."""
    paths = [str(path) for path in sorted(images.rglob("*.jpg"))]
    steps = {
        "bare loop": functools.partial(make_bare_loop, export, paths),
        "batch": functools.partial(make_batch, export, images, folder / "rate"),
    }
    costs = measure(steps, rounds)
    print(f"{machine()}\n\n{len(paths)} JPEGs of 32x32, batches of {BATCH}, {rounds} rounds in turns\n")
    for name, each in costs.items():
        print(f"{name}: {len(paths) / statistics.median(cost.clock_seconds for cost in each):.0f} images/s")
    pairs = zip(costs["bare loop"], costs["batch"], strict=True)
    ratios = [bare.clock_seconds / batch.clock_seconds for bare, batch in pairs]
    print(f"batch to bare loop: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; target 0.9)")
    batch, server = peak_of_batch(export, images, folder / "memory"), peak_of_server(export, paths)
    print(f"peak of memory: batch {batch / 2**20:.0f} MiB, server {server / 2**20:.0f} MiB")
    print(f"batch to server: {batch / server:.2f} (target 1.3)")


def make_bare_loop(export: Path, paths: Sequence[str]) -> Step:
    """Reads and runs batch after batch, and keeps what comes out."""
    model = load(export / "1")

    def step() -> list[dict[str, np.ndarray]]:
        outputs = []
        for start in range(0, len(paths), BATCH):
            encoded = np.array([Path(path).read_bytes() for path in paths[start : start + BATCH]], object)
            outputs.append(model.run(SIGNATURE, {"image_bytes": encoded}))
        return outputs

    return step


def make_batch(export: Path, images: Path, output: Path) -> Step:
    """Writes all parts, without the start of the process and the load of the model."""
    output.mkdir(parents=True, exist_ok=True)
    writer = PartWriter(
        Job(
            root=Path.cwd(),
            directory=export / "1",
            version=1,
            output=output,
            signature=SIGNATURE,
            labels=(),
            top=5,
            column=None,
            batch_size=BATCH,
            max_image_pixels=100_000_000,
        )
    )

    def step() -> None:
        for part in make_parts(find_files([str(images)], output), PART, None):
            writer.write(part, lambda counts: None)

    return step


def peak_of_batch(export: Path, images: Path, output: Path) -> int:
    """The peak of a process that runs the command, in bytes."""
    line = [sys.executable, "-m", "serving", "batch", str(export), str(images), f"--output={output}", *FLAGS]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def peak_of_server(export: Path, paths: Sequence[str]) -> int:
    """The peak of a server that has answered for all images, in bytes."""
    with (
        serving(Sample(export, "images", np.zeros((32, 32, 3), np.float32))) as server,
        Client(f"grpc://127.0.0.1:{server.grpc}", "m") as client,
        ThreadPoolExecutor(2) as threads,
    ):
        batches = [[Path(path) for path in paths[start : start + BATCH]] for start in range(0, len(paths), BATCH)]
        list(threads.map(functools.partial(client.predict, signature=SIGNATURE), batches))
        status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    sys.exit(main())
