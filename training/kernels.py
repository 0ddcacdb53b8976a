"""The choice between the two sets of kernels that TensorFlow has for a CPU: oneDNN's and its own.

`python -m training.kernels` takes a step of a small convolution for each line of standard input: `measure_kernels`
starts one process for each set.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import zlib
from importlib import metadata

from training.environment import DEVICES, ONEDNN, keep_freed_memory, visible_gpus
from training.machine import cpu_info, cpu_name

_NAMES = {True: "oneDNN's", False: "TensorFlow's own"}
_TURNS = 5
_TIMEOUT = 120  # seconds for a process that takes steps


def choose_onednn(
    stored: bool | None, cache_dir: pathlib.Path, measured: bool = True, devices: pathlib.Path = DEVICES
) -> bool | None:
    """Chooses the CPU's kernels for a run, and says so in a line.

    TensorFlow takes oneDNN's kernels on some CPUs and its own on others, where oneDNN's may be twice as fast. The two
    round differently, so that a run keeps those it has begun with.

    Args:
        stored: What the run has been trained with; None for a new run.
        cache_dir: Holds `kernels.json`, which remembers what was measured by CPU and TensorFlow's version.
        measured: Whether to compare both on this machine where nothing else decides; workers of a cluster must not.
        devices: The folder of the device files: where a GPU is used, nothing is measured.

    Returns:
        Whether the kernels are oneDNN's; None where TensorFlow or `TF_ENABLE_ONEDNN_OPTS` decides.
    """
    if os.environ.get(ONEDNN) or "tensorflow" in sys.modules:  # which has read the variable already
        return None
    if stored is not None:
        print(f"CPU kernels: {_NAMES[stored]}, with which this run began", flush=True)
        return stored
    if not measured or visible_gpus(devices):
        return None
    try:
        faster = _faster_with_onednn(cache_dir.expanduser() / "kernels.json")
    except (OSError, ValueError):
        print("CPU kernels: TensorFlow's choice, for those there are could not be compared", flush=True)
        return None
    print(f"CPU kernels: {_NAMES[faster]}, the faster ones here; {ONEDNN}=0 or 1 chooses others", flush=True)
    return faster


def measure_kernels() -> dict[bool, float]:
    """The seconds of a small training step with oneDNN's kernels (True) and without, each in a process of its own.

    Raises:
        OSError: A process cannot be started, or has ended.
        ValueError: A process has ended.
    """
    with contextlib.ExitStack() as stack:
        workers = {onednn: stack.enter_context(_worker(onednn)) for onednn in (True, False)}
        for worker in workers.values():
            _take_step(worker)  # both have started before either is measured
        turns = [{onednn: _take_step(worker) for onednn, worker in workers.items()} for _ in range(_TURNS)]
    return {onednn: min(turn[onednn] for turn in turns) for onednn in workers}


def onednn_in_use() -> bool | None:
    """Whether this process's TensorFlow takes oneDNN's kernels; None where that cannot be found out."""
    try:
        from tensorflow.python.util import _pywrap_util_port
    except ImportError:
        return None
    return bool(_pywrap_util_port.IsMklEnabled())


def _cpu() -> str:
    """The CPU's name, and a checksum of what it is and can do: virtual machines hide names and instructions."""
    first = cpu_info().partition("\n\n")[0]
    lasting = re.findall(r"^((?:CPU|cpu family|model|stepping|flags|Features)\b.*)$", first, re.MULTILINE)
    return f"{cpu_name()} {zlib.crc32(str(lasting).encode()):08x}"


def _faster_with_onednn(cache: pathlib.Path) -> bool:
    key, known = f"{_cpu()}, TensorFlow {metadata.version('tensorflow')}", _remembered(cache)
    if key not in known:
        seconds = measure_kernels()
        known[key] = seconds[True] < seconds[False]
        with contextlib.suppress(OSError):  # then the next run measures again
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(known, indent=2) + "\n")
    return known[key]


def _remembered(cache: pathlib.Path) -> dict[str, bool]:
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, bool)} if isinstance(known, dict) else {}


def _worker(onednn: bool) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "training.kernels"],
        env={**os.environ, ONEDNN: str(int(onednn))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
    )


def _take_step(worker: "subprocess.Popen[str]") -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("step\n")
    return float(worker.stdout.readline())


def _take_steps() -> None:
    """Prints the seconds of a training step of two 3x3 convolutions for each line of standard input."""
    signal.alarm(_TIMEOUT)
    keep_freed_memory()
    sys.modules["keras"] = None  # type: ignore[assignment]  # a third of TensorFlow's import
    import tensorflow as tf

    @tf.function(autograph=False)
    def step(images: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch((images, kernel))
            hidden = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
            loss = tf.reduce_sum(tf.nn.relu(tf.nn.conv2d(hidden, kernel, 1, "SAME")))
        return tape.gradient(loss, (images, kernel))

    images, kernel = tf.ones((32, 32, 32, 32)), tf.fill((3, 3, 32, 32), 0.01)
    step(images, kernel)
    for _ in sys.stdin:
        start = time.perf_counter()
        step(images, kernel)[1].numpy()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    _take_steps()
