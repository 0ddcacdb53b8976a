"""What the input pipeline does beside plain JPEG decoding, and whether it keeps a network waiting.

    python -m benchmarks.pipeline [--rounds 15]

JPEGs of 500x375 pixels with the detail of photos: decoding, scale jitter, a crop of 224, flip and colour, batched for
one device, beside `tf.io.decode_jpeg` of the same files, in turns, in CPU time. Then the 9-convolution network of the
recipe for CIFAR-10 takes steps, and the time that it waits for its batches is counted.
"""

import argparse
import dataclasses
import functools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.interleaved import Step, measure, time_ratios
from benchmarks.layer import machine

IMAGES = 256
BATCH = 64
RATE_BAR = 0.84
WAIT_BAR = 0.02
STEPS = 30
IDLE_SECONDS = 0.1


def main() -> int:
    """Measures and prints; the exit status is 0 where the bars are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        num_bytes = write_photos(Path(folder), IMAGES)
        waited = share_waited(Path(folder))
        factories = {name: functools.partial(make, folder) for name, make in CANDIDATES.items()}
        costs = measure(factories, arguments.rounds)
    print(f"{machine()}\n")
    print(f"{IMAGES} JPEGs of 500x375, {num_bytes / 1000:.0f} kB each, medians of {arguments.rounds} rounds\n")
    print("| what | images a second of CPU time | rate beside decoding |\n|---|---|---|")
    ratios = {}
    for name, each in costs.items():
        low, ratios[name], high = time_ratios(costs["decode_jpeg"], each)
        rate = IMAGES / statistics.median(cost.seconds for cost in each)
        print(f"| {name} | {rate:,.0f} | {ratios[name]:.2f} ({low:.2f}-{high:.2f}) |")
    kept = ratios["training"] >= RATE_BAR and waited < WAIT_BAR
    print(
        f"\ntraining at least {RATE_BAR}; a step waits {waited:.2%}, below {WAIT_BAR:.0%}: {'ok' if kept else 'MISSED'}"
    )
    return 0 if kept else 1


def write_photos(folder: Path, count: int) -> float:
    """Writes JPEGs with less of a detail the finer it is, as photos have; returns their mean size in bytes."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    sizes = []
    for index in range(count):
        layers = [(4, 60), (12, 40), (40, 25), (120, 14), (250, 8)]  # rows of detail, and its deviation
        noise = [tf.image.resize(rng.normal(0, each, (rows, rows * 4 // 3, 3)), (375, 500)) for rows, each in layers]
        pixels = np.clip(128 + np.sum(noise, axis=0), 0, 255).astype(np.uint8)
        path = folder / "train" / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(pixels, quality=92).numpy())
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes)


def make_decoding(folder: str) -> Step:
    """Reads and decodes every file."""
    import tensorflow as tf

    from training.data.datasets import open_image_set

    encoded = open_image_set("image_folder", folder).encoded("train")
    decoded = encoded.map(lambda image, _: tf.io.decode_jpeg(image, 3), num_parallel_calls=tf.data.AUTOTUNE)
    return lambda: _count(decoded.prefetch(BATCH))


def make_pipeline(folder: str, scale: tuple[int, int]) -> Step:
    """Takes an epoch of training batches."""
    from training.config import Config
    from training.data.datasets import open_image_set
    from training.data.pipeline import train_batches

    config = Config(
        dataset="image_folder",
        image_size=224,
        batch_size=BATCH,
        scale_min=scale[0],
        scale_max=scale[1],
        flip=True,
        pca_colour=0.1,
    )
    batches = iter(train_batches(open_image_set("image_folder", folder), config, (224, 224, 3), 1, 0))

    def step() -> None:
        for _ in range(IMAGES // BATCH):
            next(batches)
        _wait_until_idle()

    return step


CANDIDATES = {
    "decode_jpeg": make_decoding,
    "training": functools.partial(make_pipeline, scale=(256, 512)),  # as the paper has it
    "training, scale 256": functools.partial(make_pipeline, scale=(256, 256)),
    "training, scale 512": functools.partial(make_pipeline, scale=(512, 512)),
}


def share_waited(folder: Path) -> float:
    """What share of a step's time passes before its batch is there, for photos cropped to 32 pixels."""
    from training.config import load_config
    from training.distribute.strategy import make_strategy
    from training.experiment import build_experiment

    config = dataclasses.replace(
        load_config("cifar10"),
        dataset="image_folder",
        data_dir=str(folder),
        test_split="train",
        image_size=32,
        scale_min=40,
        scale_max=48,
        deterministic=False,
    )
    experiment = build_experiment(config, make_strategy(1))
    step, batches = experiment.train_step(), iter(experiment.train_batches(0))
    for _ in range(3):
        step(next(batches))
    waited, start = 0.0, time.perf_counter()
    for _ in range(STEPS):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        float(step(batch)["loss"])
    return waited / (time.perf_counter() - start)


def _count(dataset) -> int:
    return sum(1 for _ in dataset)


def _wait_until_idle() -> None:
    """Lets the batches be made that a pipeline holds ready: else another's turn would pay for them."""
    before = -1.0
    while time.process_time() - before > IDLE_SECONDS / 10:
        before = time.process_time()
        time.sleep(IDLE_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
