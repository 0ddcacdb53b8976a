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

from keras_prelu.networks.small import small_network
from training.config import Config
from training.data.datasets import ImageSet, open_image_set
from training.data.pipeline import train_batches
from training.distribute.cluster import read_cluster
from training.distribute.rendezvous import meet
from training.distribute.strategy import make_strategy, own_replicas
from training.interrupts import stop_requests
from training.step.steps import make_train_step, repeated
from training.step.update import make_updater

SHAPE = (8, 8, 1)
STEPS = 4  # two epochs of 1,438 images: a batch that is full, and one that is not
EVEN = Config(batch_size=720, crop_padding=1, shuffle_buffer=2000, warmup_steps=0)
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
DYING = "dying"  # as even, but worker 1 is killed after two steps


def train(strategy: tf.distribute.Strategy, images: ImageSet, config: Config, killed: bool = False) -> list[np.ndarray]:
    """Trains a small network on digits for a few steps and returns its weights."""
    with strategy.scope():
        model = small_network(SHAPE, 10, filters=(4, 6), convolutions=1, seed=1)
        optimizer = make_updater(config, model)
    batches = strategy.distribute_datasets_from_function(
        lambda context: train_batches(
            images, config, SHAPE, strategy.num_replicas_in_sync, 0, own_replicas=own_replicas(context)
        )
    )
    step = make_train_step(strategy, model, optimizer, config)
    if config.steps_per_execution > 1:
        repeated(step)(iter(batches), tf.constant(config.steps_per_execution))
        return model.get_weights()
    for index, batch in zip(range(STEPS), batches, strict=False):
        if killed and index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        step(batch)
    return model.get_weights()


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
            weights = train(strategy, images, CASES.get(case, EVEN), dies)
            np.savez(folder / f"{case}-{peers.index}.npz", *weights)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])
