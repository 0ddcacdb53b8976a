"""What each worker of test_two_workers runs: a loop of nothing but steps, once for each case.

python minimal_loop.py FOLDER CASE [CASE ...]
"""

import dataclasses
import os
import pathlib
import signal
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

from training.environment import native_messages_held

with native_messages_held():
    import tensorflow as tf

    tf.config.list_physical_devices()

import numpy as np

from training.config import Config
from training.data.datasets import ImageSet, open_image_set
from training.data.pipeline import train_batches
from training.distribute.cluster import read_cluster
from training.distribute.rendezvous import meet
from training.distribute.strategy import make_strategy, own_replicas
from training.interrupts import stop_requests
from training.network import make_network
from training.step.steps import make_train_step, repeated
from training.step.update import make_updater

STEPS = 4  # two epochs of 1,438 images: a batch that is full, and one that is not
SMALL = {"filters": (4, 6), "convolutions": 1, "seed": 1}
EVEN = Config(batch_size=720, crop_padding=1, warmup_steps=0, **SMALL)
RAGGED = dataclasses.replace(EVEN, batch_size=1000)  # the last batch of an epoch has no image for worker 1
EXTRAS = {
    "gradient_accumulation_steps": 3,
    "clip_norm": 0.5,
    "label_smoothing": 0.1,
    "weight_decay": 0.01,
    "xla": True,
    "deterministic": False,
}
CASES = {
    "even": EVEN,
    "ragged": RAGGED,
    "one-call": dataclasses.replace(RAGGED, steps_per_execution=STEPS),
    "everything": dataclasses.replace(RAGGED, **EXTRAS),
}
OWN = f"{__package__}.own_network:normalized" if __package__ else "own_network:normalized"  # a script has no package
BATCHES_OF_NINE = {"batch_size": 9, "warmup_steps": 0, "weight_decay": 0.01, "precision": "float64"}
NETWORKS = {
    "own": Config(network=OWN, **BATCHES_OF_NINE),
    "file": Config(network="own.keras", **BATCHES_OF_NINE),
    "backbone": Config(network="keras.applications:MobileNet", image_size=32, **BATCHES_OF_NINE),
}
# In float64: a ReLU whose input is zero but for a rounding error passes a gradient or stops it, as the error falls.
CASES |= {
    f"{name}-{optimizer}": dataclasses.replace(config, optimizer=optimizer, learning_rate=0.01)
    for name, config in NETWORKS.items()
    for optimizer in ("sgd", "adamw")
}
DYING = "dying"  # as even, but worker 1 is killed after two steps


def train(
    strategy: tf.distribute.Strategy, images: ImageSet, config: Config, folder: pathlib.Path, killed: bool = False
) -> list[np.ndarray]:
    """Trains a network on digits for a few steps and returns its weights.

    Args:
        strategy: The devices.
        images: The digits.
        config: The case.
        folder: Holds `own.keras`, the network of the cases "file".
        killed: Whether this process is killed after two steps.
    """
    shape = images.input_shape(config.image_size)
    steps = STEPS if config.network == "small" else 2
    with strategy.scope():
        model = make_network(config, shape, 10, file=folder / config.network)
        updater = make_updater(config, model)
    batches = strategy.distribute_datasets_from_function(
        lambda context: train_batches(
            images, config, shape, strategy.num_replicas_in_sync, 0, own_replicas=own_replicas(context)
        )
    )
    step = make_train_step(strategy, model, updater, config)
    if config.steps_per_execution > 1:
        repeated(step)(iter(batches), tf.constant(config.steps_per_execution))
        return model.get_weights()
    for index, batch in zip(range(steps), batches, strict=False):
        if killed and index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        step(batch)
    return model.get_weights()


def write_file(folder: pathlib.Path) -> None:
    """Writes the network of the cases "file"."""
    make_network(NETWORKS["own"], (8, 8, 1), 10).save(folder / "own.keras")


def main(folder: pathlib.Path, cases: list[str]) -> None:
    """Trains as one of several workers; each saves what it ends with."""
    cluster = read_cluster(os.environ)
    with meet(cluster, {"cases": cases}, 60) as peers, stop_requests():
        strategy = make_strategy(cluster=cluster)
        print(f"{tf.config.threading.get_intra_op_parallelism_threads()} threads", flush=True)
        with peers.chief_first():
            images = open_image_set("digits")
        for case in cases:
            dies = case == DYING and peers.index == 1
            weights = train(strategy, images, CASES.get(case, EVEN), folder, dies)
            np.savez(folder / f"{case}-{peers.index}.npz", *weights)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])
