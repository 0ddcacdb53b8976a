"""Kills a run (SIGKILL) again and again and compares its last weights, bit by bit, with those of one left alone.

    python -m benchmarks.kill [--kills 20] [--seed 0]

Each of them at a random moment, in turn while the process starts or while it trains, but the last: it comes while a
checkpoint is being written.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np

from training.environment import native_messages_held

FLAGS = [
    *("--filters", "4,8", "--convolutions", "1", "--batch_size", "32", "--crop_padding", "1", "--cpu_devices", "2"),
    *("--log_every", "10", "--evaluate_every", "250", "--checkpoint_every", "20"),
]
REPORTS = 6  # of ten steps each, that a process gets to write at most
PAUSE = 0.1  # seconds after that, at most
STARTING = 4.0  # seconds from a process's start to its first step, about
STEPS_PER_KILL = 100  # more than a process gets to take

State = dict[str, np.ndarray]


def main() -> int:
    """Kills, compares, prints; the exit status is 0 where the bits agree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed, alone = run_both(Path(folder), arguments.kills, arguments.seed)
    same = same_bits(killed, alone)
    print(f"{arguments.kills} kills: the last state has {'the same' if same else 'OTHER'} bits")
    return 0 if same else 1


def run_both(folder: Path, kills: int, seed: int) -> tuple[State, State]:
    """The last state of a run that was killed so many times, and that of one which was not."""
    moments = random.Random(seed)
    steps = STEPS_PER_KILL * (kills + 1)
    for kill in range(1, kills):
        if kill % 4 == 0:
            _kill(folder / "killed", steps, reports=0, pause=moments.uniform(0, STARTING))
        else:
            _kill(folder / "killed", steps, reports=moments.randint(1, REPORTS), pause=moments.uniform(0, PAUSE))
        print(f"kill {kill} after step {_last_report(folder / 'killed')}", flush=True)
    _kill_in_a_write(folder / "killed", steps)
    print(f"kill {kills} after step {_last_report(folder / 'killed')}, within a write", flush=True)
    return _finish(folder / "killed", steps), _finish(folder / "alone", steps)


def same_bits(one: State, other: State) -> bool:
    """Whether two states have the same arrays with the same bytes."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def _kill(workdir: Path, steps: int, reports: int, pause: float) -> None:
    """Kills after so many reports of ten steps, and so many seconds."""
    log = workdir.with_suffix(".log")
    log.write_text("")
    with _training(workdir, steps) as process:
        _wait(process, lambda: log.read_text().count("images/s") >= reports)
        time.sleep(pause)
        assert process.is_alive(), "the run was over before it could be killed: it needs more steps"
        process.kill()


def _kill_in_a_write(workdir: Path, steps: int) -> None:
    """Kills as soon as half a checkpoint is there; tries until it was in time, and the half stays behind."""
    unfinished = workdir / "checkpoints" / "unfinished"
    while not unfinished.exists():
        with _training(workdir, steps) as process:
            _wait(process, unfinished.exists, interval=0)
            process.kill()


def _finish(workdir: Path, steps: int) -> State:
    with _training(workdir, steps) as process:
        process.join()
    assert process.exitcode == 0, workdir.with_suffix(".log").read_text()
    with np.load(workdir / "checkpoints" / f"{steps}.npz") as arrays:
        return dict(arrays)


def _wait(process: ForkServerProcess, condition: Callable[[], bool], interval: float = 0.001) -> None:
    while not condition():
        assert process.is_alive(), "the run was over before it could be killed: it needs more steps"
        time.sleep(interval)


@contextlib.contextmanager
def _training(workdir: Path, steps: int) -> Iterator[ForkServerProcess]:
    """A process that trains; whatever happens, it is gone after the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "training.train"])  # six seconds that each process need not spend
    process = context.Process(target=_train, args=(workdir, steps))
    with native_messages_held():
        process.start()
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()


def _train(workdir: Path, steps: int) -> None:
    """What `python -m training fit` does, with its output in a file."""
    from tqdm import tqdm

    from training.__main__ import main

    tqdm.set_lock(threading.RLock())  # its own is shared between processes, and would outlive a killed one
    log = os.open(workdir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    data = workdir.parent / "data"
    data.mkdir(exist_ok=True)
    flags = ["--workdir", str(workdir), "--data_dir", str(data), "--steps", str(steps), *FLAGS]
    sys.exit(main(["fit", "--config", "digits", *flags]))


def _last_report(workdir: Path) -> int:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return max((json.loads(line)["step"] for line in lines if '"train"' in line), default=0)


if __name__ == "__main__":
    sys.exit(main())
