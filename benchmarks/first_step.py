"""From the command to the first step, and the memory held then: the trainer's and Keras's `fit`, processes in turns."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROUNDS = 5

KERAS = """
import keras, numpy as np
from benchmarks import steps_keras

class End(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs):
        print("step", flush=True)

model = steps_keras.network("keras")
model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(np.zeros((128, 32, 32, 3), "float32"), np.zeros(128), batch_size=128, verbose=0, callbacks=[End()])
input()
"""

TRAINER = """
import sys
from training.__main__ import main
from training.run.progress import Progress

train = Progress.train
def ends(progress, step, figures):
    train(progress, step, figures)
    print("step", flush=True)
    input()
Progress.train = ends
main(sys.argv[1:])
"""


def table(folder: Path) -> str:
    """Medians, with a line for each of the two.

    Args:
        folder: Has `photos`, an image folder.
    """
    flags = [
        *("--config", "image_folder", "--data_dir", str(folder / "photos"), "--image_size", "32"),
        *("--filters", "32,64,128", "--convolutions", "3", "--batch_size", "128", "--log_every", "1"),
    ]
    commands = {"fit": [KERAS], "trainer": [TRAINER, "fit", *flags, "--workdir"]}
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(ROUNDS):
        for name, command in commands.items():
            own = [str(folder / f"first{turn}")] if name == "trainer" else []
            figures[name].append(first_step([sys.executable, "-c", *command, *own]))
    lines = ["| | seconds to the first step | MiB held then |", "|---|---|---|"]
    for name, each in figures.items():
        seconds, memory = (statistics.median(column) for column in zip(*each, strict=True))
        lines.append(f"| {name} | {seconds:.1f} | {memory:.0f} |")
    return "\n".join(lines) + "\n"


def first_step(command: Sequence[str]) -> tuple[float, float]:
    """Seconds until a process prints a line `step`, and the MiB it holds then; it is ended there."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == b"step\n":
                break
        seconds = time.perf_counter() - start
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.kill()
    (held,) = (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))
    return seconds, held
