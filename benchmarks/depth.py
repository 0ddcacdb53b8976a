"""Plain networks of 30, 60 and 100 layers whose slopes start at 0, at 0.25 and tailored: which of them learn?

    TFDS_DATA_DIR=... python -m benchmarks.depth [--write docs]

Trains on Fashion-MNIST what `<folder>/depth/*.jsonl` does not hold yet, then writes the table and the plot of the page.
"""

import argparse
import functools
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from benchmarks.depth_results import best_rates, read, write_page
from keras_prelu import PReLU, initialize, predict_gains

DEPTHS = (30, 60, 100)  # layers with a kernel
STARTS = ("0", "0.25", "tailored")
SEEDS = (0, 1, 2)
SWEEP_SEED = 100
RATES = (0.03, 0.01, 0.003, 0.001)
TARGET = 0.9  # C(0) of tailored networks
POINTS = 20  # of a curve


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: of which network, from which seed, with which learning rate, for how many steps."""

    depth: int
    start: str
    seed: int
    learning_rate: float
    steps: int = 1000
    width: int = 128
    batch_size: int = 128
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Images:
    """Vectors of pixels and their labels, for training and for testing."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Trains what is missing and writes the page's table and plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth", description=__doc__)
    parser.add_argument("--write", type=Path, default=Path("docs"), help="the folder of depth.md and depth/")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS, help="train only these")
    parser.add_argument("--threads", type=int, default=1, help="for TensorFlow; 0: as many as there are cores")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    results = arguments.write / "depth"
    images = load_images()
    train_missing(sweep(arguments.starts), images, results / "sweep.jsonl")
    rates = best_rates(read(results / "sweep.jsonl"))
    train_missing(full_runs(rates, arguments.starts), images, results / "runs.jsonl")
    train_missing(long_runs(rates, arguments.starts), images, results / "long.jsonl")
    write_page(arguments.write)


def sweep(starts: tuple[str, ...] = STARTS) -> list[Run]:
    """The short runs that choose a learning rate per depth and start."""
    return [
        Run(depth=depth, start=start, seed=SWEEP_SEED, learning_rate=rate, steps=400)
        for start in starts
        for depth in DEPTHS
        for rate in RATES
    ]


def full_runs(rates: dict[tuple[int, str], float], starts: tuple[str, ...] = STARTS) -> list[Run]:
    """The runs that the page compares: three seeds of each depth and start."""
    return [
        Run(depth=depth, start=start, seed=seed, learning_rate=rates[depth, start])
        for start in starts
        for seed in SEEDS
        for depth in DEPTHS
    ]


def long_runs(rates: dict[tuple[int, str], float], starts: tuple[str, ...] = STARTS) -> list[Run]:
    """The deepest networks once more for five times as long, one seed each: does the difference last?"""
    depth = max(DEPTHS)
    return [
        Run(depth=depth, start=start, seed=SEEDS[0], learning_rate=rates[depth, start], steps=5000) for start in starts
    ]


def train_missing(runs: list[Run], images: Images, path: Path) -> None:
    """Trains every run that the file does not hold, and appends a line per run as it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for run in runs:
        if any(asdict(run).items() <= line.items() for line in read(path)):
            continue
        line = json.dumps(asdict(run) | train(run, images), allow_nan=False)
        with path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def train(run: Run, images: Images) -> dict[str, Any]:
    """Trains one network; returns its curve and what was measured before and after."""
    started = time.perf_counter()
    model = network(run.depth, run.width, images.train[0].shape[1], run.clip_norm)
    restart(model, run)
    slope = mean_slope(model)
    predicted, measured = predict_gains(model).likeness, measured_likeness(model)
    history = model.fit(
        batches(images.train, run), epochs=POINTS, steps_per_epoch=run.steps // POINTS, shuffle=False, verbose=0
    )
    test_loss, test_accuracy = model.evaluate(*images.test, batch_size=1000, verbose=0)
    return {
        "slope": rounded(slope),
        "c0": rounded(predicted),
        "c0_measured": rounded(measured),
        "loss": [rounded(loss) for loss in history.history["loss"]],
        "accuracy": [rounded(accuracy) for accuracy in history.history["accuracy"]],
        "test_loss": rounded(test_loss),
        "test_accuracy": rounded(test_accuracy),
        "slope_after": rounded(mean_slope(model)),
        "seconds": round(time.perf_counter() - started, 1),
    }


@functools.cache
def network(depth: int, width: int, inputs: int, clip_norm: float) -> keras.Model:
    """A chain of `depth` Dense layers with a PReLU after each but the last; no normalization, no shortcuts.

    Runs share it, since tracing it takes longer than half of them.
    """
    chain: list[keras.layers.Layer] = [keras.Input((inputs,))]
    for _ in range(depth - 1):
        chain += [keras.layers.Dense(width), PReLU()]
    model = keras.Sequential([*chain, keras.layers.Dense(10)])
    model.compile(
        keras.optimizers.SGD(momentum=0.9, global_clipnorm=clip_norm),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def restart(model: keras.Model, run: Run) -> None:
    """Gives a network the weights, the slopes and the optimizer that a run starts with."""
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))
    model.optimizer.learning_rate = run.learning_rate
    tailored = run.start == "tailored"
    for layer in rectifiers(model):
        layer.alpha.assign(np.full(layer.alpha.shape, 0.25 if tailored else float(run.start)))
    if tailored:
        initialize(model, tailor=TARGET, seed=run.seed)
    else:
        initialize(model, seed=run.seed)


def rectifiers(model: keras.Model) -> list[PReLU]:
    """The layers that hold the slopes."""
    return [layer for layer in model.layers if isinstance(layer, PReLU)]


def mean_slope(model: keras.Model) -> float:
    """The mean over all slopes."""
    return float(np.mean([np.mean(layer.alpha) for layer in rectifiers(model)]))


def measured_likeness(model: keras.Model) -> float:
    """The mean cosine between the signals of 256 inputs of noise, before the last layer."""
    noise = np.random.default_rng(0).standard_normal((256, *model.input_shape[1:])).astype("float32")
    signals = np.asarray(keras.Model(model.inputs[0], model.layers[-1].input)(noise), "float64")
    signals /= np.linalg.norm(signals, axis=1, keepdims=True)
    cosines = signals @ signals.T
    return float(np.mean(cosines[np.triu_indices(len(noise), 1)]))


def batches(examples: tuple[np.ndarray, np.ndarray], run: Run) -> tf.data.Dataset:
    """Shuffled batches without end, in an order that follows from the seed."""
    images, labels = (tf.constant(array) for array in examples)
    indices = (
        tf.data.Dataset.range(len(images))
        .shuffle(len(images), seed=run.seed)
        .repeat()
        .batch(run.batch_size, drop_remainder=True)
    )
    return indices.map(lambda index: (tf.gather(images, index), tf.gather(labels, index)))


def load_images() -> Images:
    """Fashion-MNIST as vectors: the mean of each pixel is subtracted, the whole is scaled to unit variance."""
    splits = [tfds.as_numpy(tfds.load("fashion_mnist", split=split, batch_size=-1)) for split in ("train", "test")]
    train, test = (split["image"].reshape(len(split["image"]), -1).astype("float32") for split in splits)
    mean = train.mean(axis=0)
    std = (train - mean).std()
    return Images(((train - mean) / std, splits[0]["label"]), ((test - mean) / std, splits[1]["label"]))


def rounded(value: float) -> float | None:
    """Six significant digits, and None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


if __name__ == "__main__":
    main()
