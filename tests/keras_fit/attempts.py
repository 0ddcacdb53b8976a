"""Tries on Keras's `fit` what docs/keras_fit.md names; run as a process of its own, it prints the results as JSON.

It is a process because two strategies with Keras's default reduction get one another's sums mixed up.
"""

import json
import os
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf

STEPS = 50


def network(normalized: bool = False) -> keras.Model:
    """Two dense layers, always with the same weights; a BatchNormalization between them."""
    keras.utils.set_random_seed(0)
    between = [keras.layers.BatchNormalization()] if normalized else []
    dense = keras.layers.Dense(8, activation="relu")
    return keras.Sequential([keras.Input((4,)), dense, *between, keras.layers.Dense(3)])


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many images and their labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 4)).astype("float32"), rng.integers(0, 3, count)


def weights(
    strategy: tf.distribute.Strategy, count: int, optimizer: dict, normalized: bool = False, **compiled: object
) -> np.ndarray:
    """All weights after two epochs in batches of six."""
    with strategy.scope():
        model = network(normalized)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.5, **optimizer), loss, **compiled)
    model.fit(*images(count), batch_size=6, epochs=2, shuffle=False, verbose=0)
    return np.concatenate([value.ravel() for value in model.get_weights()])


def same_masks(strategy: tf.distribute.Strategy) -> bool:
    """Whether both replicas drop the same units."""
    with strategy.scope():
        layer = keras.layers.Dropout(0.5, seed=1)
    ones = tf.ones((4, 8))
    one, other = strategy.experimental_local_results(strategy.run(tf.function(lambda: layer(ones, training=True))))
    return bool(np.array_equal(one, other))


def decayed() -> float:
    """What is left of a weight of 1 after steps without a gradient."""
    weight = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(STEPS):
        optimizer.apply([tf.zeros(1)], [weight])
    return float(weight[0])


class Interrupt(keras.callbacks.Callback):
    """Ends a run within its second epoch of eight steps."""

    steps = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Counts."""
        self.steps += 1
        if self.steps == 13:
            raise KeyboardInterrupt


def resumed() -> tuple[int, int]:
    """The steps of two epochs of eight that were interrupted and gone on with; a plateau's patience used up then."""
    data = images(48)
    with tempfile.TemporaryDirectory() as folder:
        for interrupted in (True, False):
            model = network()
            model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=9, min_delta=100)
            callbacks = [keras.callbacks.BackupAndRestore(folder, save_freq=3), plateau]
            try:
                model.fit(*data, 6, 2, 0, callbacks + [Interrupt()] * interrupted, shuffle=False)
            except KeyboardInterrupt:
                continue
    return int(model.optimizer.iterations), plateau.wait


def work() -> None:
    """Says how `fit` fails as one of several workers."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    try:
        weights(strategy, 12, {})
        print("trained")
    except ValueError as error:
        print(str(error).partition("(")[0])
    os._exit(0)  # the other worker would be waited for


def main() -> None:
    """Tries everything."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, two = (tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)]) for count in (1, 2))

    def apart(count: int, normalized: bool = False, **optimizer: object) -> float:
        ends = [weights(strategy, count, optimizer, normalized) for strategy in (one, two)]
        return float(abs(ends[0] - ends[1]).max())

    def failure(optimizer: dict, **compiled: object) -> str:
        try:
            weights(two, 12, optimizer, **compiled)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    iterations, wait = resumed()
    results = {
        "even": apart(12),
        "ragged": apart(11),
        "one without": apart(7),
        "normalized": apart(12, normalized=True),
        "clipped": apart(12, global_clipnorm=0.1),
        "several steps": failure({}, steps_per_execution=2),
        "xla": failure({}, jit_compile=True),
        "accumulation": failure({"gradient_accumulation_steps": 2}),
        "same masks": same_masks(two),
        "decayed": decayed(),
        "iterations": iterations,
        "plateau": wait,
    }
    print(json.dumps(results))


if __name__ == "__main__":
    work() if sys.argv[1:] == ["worker"] else main()
