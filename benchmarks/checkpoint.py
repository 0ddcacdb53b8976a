"""What a checkpoint costs training: a model of 100 MB and its velocities, written while steps go on.

    python -m benchmarks.checkpoint [--rounds 5] [--folder /tmp]

So many seconds of steps in turns, with a checkpoint at their start and without; the difference between the steps taken,
over the seconds between two checkpoints, is what training loses.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.layer import machine
from keras_prelu.networks.small import small_network
from training.config import Config
from training.distribute.strategy import make_strategy
from training.run.checkpoint import Checkpoints
from training.step.steps import make_train_step
from training.step.update import make_updater

CONFIG = Config(batch_size=32, warmup_steps=0, learning_rate=1e-3)
EVERY = 60.0  # seconds between two checkpoints
BAR = 0.05
SECONDS = 20.0  # of steps, in which a write must end


@dataclass(frozen=True)
class Cost:
    """Of one checkpoint, in seconds: the pause in which the state is copied, the write, the training time lost."""

    pause: float
    write: float
    lost: float


def main() -> int:
    """Measures and prints; the exit status is 0 where the bar is kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="on the disk that is written to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        costs = measure(Path(folder), arguments.rounds)
    pause, write, lost = (
        statistics.median(getattr(cost, name) for cost in costs) for name in ("pause", "write", "lost")
    )
    verdict = "ok" if lost / EVERY < BAR else "MISSED"
    print(f"{machine()}\n")
    print(f"pause {pause:.2f} s, write {write:.2f} s, training time lost {lost:.2f} s, medians of {arguments.rounds}")
    print(f"a checkpoint every {EVERY:.0f} s slows training by {lost / EVERY:.2%}; at most {BAR:.0%}: {verdict}")
    return 0 if verdict == "ok" else 1


def measure(folder: Path, rounds: int) -> list[Cost]:
    """The cost of one checkpoint a round."""
    strategy = make_strategy(1)
    with strategy.scope():
        model = small_network((32, 32, 3), 10, filters=(64, 128, 256, 512, 1280), seed=0)
        optimizer = make_updater(CONFIG, model)
    checkpoints = Checkpoints(folder, model, optimizer=optimizer)
    step = make_train_step(strategy, model, optimizer, CONFIG)
    batch = _batch(strategy)
    size = sum(np.prod(variable.shape) * 4 for variable in model.variables)
    print(f"{size / 1e6:.0f} MB of weights and as much of velocities", flush=True)
    for _ in range(3):
        step(batch)
    costs = []
    for number in range(1, rounds + 1):
        before, _ = _rate(lambda: step(batch))
        start = time.perf_counter()
        checkpoints.save(number)
        pause = time.perf_counter() - start
        during, write = _rate(lambda: step(batch), checkpoints)
        after, _ = _rate(lambda: step(batch))
        costs.append(Cost(pause, write, pause + SECONDS * (1 - during / ((before + after) / 2))))
        print(f"round {number}: {costs[-1]}", flush=True)
    return costs


def _rate(step, checkpoints: Checkpoints | None = None) -> tuple[float, float]:
    """Steps a second over a while, and after how many seconds nothing was being written any more."""
    start = time.perf_counter()
    count, written = 0, 0.0
    while (now := time.perf_counter() - start) < SECONDS:
        step()
        count += 1
        if checkpoints is not None and not written and not checkpoints.is_writing:
            written = time.perf_counter() - start
    if checkpoints is not None:
        checkpoints.wait()
    return count / now, written


def _batch(strategy: tf.distribute.Strategy) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    batch = {
        "images": tf.constant(rng.uniform(0, 255, (CONFIG.batch_size, 32, 32, 3)), tf.float32),
        "labels": tf.constant(rng.integers(0, 10, CONFIG.batch_size)),
        "weights": tf.ones(CONFIG.batch_size),
    }
    return strategy.experimental_distribute_values_from_function(lambda _: batch)


if __name__ == "__main__":
    raise SystemExit(main())
