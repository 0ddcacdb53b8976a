"""The trainer's images a second beside Keras's `fit` and PyTorch, what its loop adds to bare steps, and its start.

    python -m benchmarks.training [--rounds 15] [--write docs]

The network of `benchmarks.layer`: nine 3x3 convolutions in three stages, batches of 128 images of 32x32 pixels, with
oneDNN's kernels and with TensorFlow's own. The trainer is `training.train.fit`, unchanged: it reads PNG files,
shuffles, decodes, trains, logs. `fit` and PyTorch are given arrays; bare steps have one batch, and those of a function
take the same network from `network="module:function"`. Ratios are medians of the ratios within a round. On a machine
with other work to do the ratios of CPU time hold, and images/s do not.
"""

import argparse
import dataclasses
import importlib.util
import os
import statistics
import tempfile
import threading
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import first_step, steps_keras
from benchmarks.interleaved import Cost, Step, measure, time_ratios
from benchmarks.layer import machine
from keras_prelu.networks.small import small_network
from training.config import Config
from training.distribute.strategy import make_strategy
from training.environment import keep_freed_memory
from training.experiment import Experiment, build_experiment
from training.train import fit

BATCH = 128
STEPS = 4  # of each candidate a round
BARS = {"fit": 1.1, "torch": 1.0, "bare steps": 0.97}  # least of the trainer's rate over theirs
CPU_BARS = {"fit": 1.0}  # most of the trainer's CPU time over theirs
CUSTOM_BAR = 1.03  # most of the CPU time of a function's network over that of the same one by its name
CONFIG = Config(
    dataset="image_folder",
    test_split="val",
    image_size=32,
    filters=(32, 64, 128),
    convolutions=3,
    batch_size=BATCH,
    learning_rate=1e-3,
    steps=1_000_000,
    evaluate_every=1_000_000,
    checkpoint_every=1_000_000,
)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each candidate, at least 7")
    parser.add_argument("--write", type=Path, help="the folder for training_benchmark.md")
    arguments = parser.parse_args()
    if arguments.rounds < 7:
        parser.error(f"--rounds {arguments.rounds}: medians of fewer than 7 say little")
    text = f"{machine()}\n"
    print(text)
    for setting in ("on", "off"):
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = str(int(setting == "on"))  # read by the processes that measure
        section = f"\n## oneDNN {setting}\n\n{measured(arguments.rounds)}"
        print(section, flush=True)
        text += section
    if arguments.write:
        command = f"`python -m benchmarks.training --rounds {arguments.rounds} --write docs`"
        head = f"# What the trainer costs\n\n{command}\n\n{__doc__.split(chr(10) * 2)[2].strip()}\n\n"
        (arguments.write / "training_benchmark.md").write_text(head + text)


def measured(rounds: int) -> str:
    """Both tables, and the cost of a custom network."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "photos")
        candidates = {
            "trainer": partial(trainer_steps, folder),
            "bare steps": partial(bare_steps, folder),
            "bare steps, a function's network": partial(bare_steps, folder, "benchmarks.training:custom_network"),
            "fit": fit_steps,
        }
        if importlib.util.find_spec("torch"):
            candidates["torch"] = torch_steps
        costs = measure(candidates, rounds)
        low, middle, high = time_ratios(costs["bare steps, a function's network"], costs["bare steps"])
        custom = (
            f"CPU time of a function's network over the same one by its name: {middle:.3f} ({low:.3f}-{high:.3f}), at "
            f"most {CUSTOM_BAR}: {'ok' if middle <= CUSTOM_BAR else 'MISSED'}"
        )
        return f"{table(costs)}\n{custom}\n\n{first_step.table(folder)}"


def custom_network(
    image_shape: tuple[int, int, int], num_classes: int, filters: tuple[int, ...], convolutions: int, seed: int
) -> keras.Model:
    """The network that `CONFIG` names, as a function of anybody's."""
    return small_network(image_shape, num_classes, filters=filters, convolutions=convolutions, seed=seed)


def trainer_steps(folder: Path) -> Step:
    """Steps of a run that goes on in a thread, and waits after each turn for the next."""
    keep_freed_memory()
    turn, done = threading.Semaphore(0), threading.Semaphore(0)
    make = Experiment.train_step

    def train_step(experiment: Experiment) -> Step:
        step = make(experiment)

        def in_turns(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            metrics = step(batch)
            in_turns.left -= 1
            if in_turns.left == 0:
                metrics["loss"].numpy()
                done.release()
                turn.acquire()
                in_turns.left = STEPS
            return metrics

        in_turns.left = 1
        return in_turns

    Experiment.train_step = train_step
    config = dataclasses.replace(CONFIG, data_dir=str(folder / "photos"))
    threading.Thread(target=fit, args=(config, folder / "run"), daemon=True).start()
    done.acquire()

    def run() -> None:
        turn.release()
        done.acquire()

    return run


def bare_steps(folder: Path, network: str = CONFIG.network) -> Step:
    """The trainer's compiled step alone, on one batch that is there already."""
    keep_freed_memory()
    config = dataclasses.replace(CONFIG, data_dir=str(folder / "photos"), network=network)
    tf.config.experimental.enable_op_determinism()
    experiment = build_experiment(config, make_strategy())
    step, batch = experiment.train_step(), next(iter(experiment.train_batches(0)))

    def run() -> None:
        for _ in range(STEPS):
            metrics = step(batch)
        metrics["loss"].numpy()

    return run


def fit_steps() -> Step:
    """Steps of `fit` with keras.layers.PReLU, from arrays."""
    model = steps_keras.network("keras")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss, metrics=["accuracy"])
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH * STEPS, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, BATCH * STEPS)
    return lambda: model.fit(images, labels, batch_size=BATCH, verbose=0)


def torch_steps() -> Step:
    """Steps of PyTorch with torch.nn.PReLU, channels last, on one batch."""
    from benchmarks import steps_torch

    step = steps_torch.network_step("prelu")

    def run() -> None:
        for _ in range(STEPS):
            step()

    return run


def table(costs: dict[str, list[Cost]]) -> str:
    """A line a candidate."""
    lines = [
        "| | images/s | CPU seconds a step | trainer's images/s over these | at least | | its CPU time over this "
        "| at most | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, own in costs.items():
        seconds = statistics.median(cost.clock_seconds for cost in own)
        cpu = statistics.median(cost.seconds for cost in own) / STEPS
        line = f"| {name} | {BATCH * STEPS / seconds:.0f} | {cpu:.3f} |"
        if name in BARS:
            faster = speed(costs["trainer"], own)
            verdict = "ok" if faster >= BARS[name] else "MISSED"
            low, middle, high = time_ratios(costs["trainer"], own)
            line += f" {faster:.3f} | {BARS[name]} | {verdict} | {middle:.3f} ({low:.3f}-{high:.3f}) |"
            most = CPU_BARS.get(name)
            line += f" {most} | {'ok' if middle <= most else 'MISSED'} |" if most else " | |"
        else:
            line += " | | | | | |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def speed(ours: list[Cost], theirs: list[Cost]) -> float:
    """Median over the rounds of how many times as fast ours were on the clock."""
    return statistics.median(b.clock_seconds / a.clock_seconds for a, b in zip(ours, theirs, strict=True))


def write_images(folder: Path) -> None:
    """A folder of random images in ten classes."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 1280), ("val", 10)):
        for index in range(number):
            path = folder / split / f"class{index % 10}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (32, 32, 3), dtype="uint8")
            path.write_bytes(tf.io.encode_png(image).numpy())


if __name__ == "__main__":
    main()
