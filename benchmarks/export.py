"""What an export costs: one of the paper's networks for 1000 classes, in each format and in all of them.

    python -m benchmarks.export --data_dir PHOTOS [--network A] [--formats litert,onnx]

PHOTOS is a folder as image_folder takes it, with the splits train and val. Each line is a process of its own, the
command as a user types it, from its start to its end: the checkpoint is read, the files are written, and every one of
them is compared with the Keras model on 32 photos. The weights are those that a training would start with.
"""

import argparse
import dataclasses
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.layer import machine

FORMATS = ("", "litert", "litert_int8", "onnx", "litert,litert_int8,onnx")
CONFIGS = {"14-layer": "imagenet_14layer", "A": "imagenet_a", "B": "imagenet_b", "C": "imagenet_c"}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one process: seconds on the clock and of all its threads, and the peak of its memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def main() -> int:
    """Measures and prints; the exit status is that of an export that fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--network", default="A", choices=CONFIGS)
    parser.add_argument("--formats", action="append", help="comma-separated; may be repeated, a line for each")
    arguments = parser.parse_args()
    print(f"{machine()}\n\n{arguments.network}, beside the SavedModel | s | CPU s | peak GiB | written MB")
    print("---|---|---|---|---")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        process = multiprocessing.get_context("spawn").Process(
            target=write_run, args=(run, arguments.network, arguments.data_dir)
        )
        process.start()
        process.join()
        for formats in arguments.formats or FORMATS:
            cost = export_cost(run, formats)
            written = sum(path.stat().st_size for path in run.glob("export/**/*") if path.is_file())
            figures = f"{cost.seconds:.0f} | {cost.cpu_seconds:.0f} | {cost.peak_bytes / 2**30:.1f}"
            print(f"{formats.replace(',', ', ') or 'nothing'} | {figures} | {written / 1e6:.0f}", flush=True)
    return 0


def write_run(folder: Path, network: str, data_dir: str) -> None:
    """Makes the folder of a run that has saved its first weights; in a process of its own its memory goes with it."""
    from training.config import load_config
    from training.environment import start_tensorflow
    from training.network import make_network
    from training.run.checkpoint import Checkpoints
    from training.run.folder import Run

    start_tensorflow()
    config = dataclasses.replace(
        load_config(CONFIGS[network]), dataset="image_folder", data_dir=data_dir, train_split="train", test_split="val"
    )
    labels, image_shape = tuple(f"class {number}" for number in range(1000)), (224, 224, 3)
    folder.mkdir()
    run = Run(folder)
    run.start(config, labels, image_shape, ["CPU:0"])
    with Checkpoints(run.checkpoints, make_network(config, image_shape, len(labels))) as checkpoints:
        checkpoints.save(1)


def export_cost(run: Path, formats: str) -> Cost:
    """Exports a run in a process of its own; only this version stays.

    Raises:
        SystemExit: The export fails; what it said is on standard error.
    """
    command = [sys.executable, "-m", "training", "export", f"--workdir={run}", f"--formats={formats}", "--keep=1"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    sys.exit(main())
