"""Tables 1 and 3: the networks of ImageNet at full size: their parameters, multiply-adds, and a step of each."""

import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from training.environment import start_tensorflow
from training.reproduce import figures
from training.reproduce.projection import Counts, projection_tables
from training.reproduce.study import Study
from training.reproduce.trial import Record, Trial

# Of Table 3, "ops"; the paper has none for Table 1's network and the one with 30 layers.
PAPER_MULTIPLY_ADDS = {"A": 1.90e10, "B": 2.32e10, "C": 5.30e10, "VGG-19": 1.96e10}
TAKEN = ("14-layer", "A", "B", "C")
COUNTED = ("30-layer", "VGG-19")
BATCH_SIZE = 4
LEARNING_RATE = 1e-5  # with which two steps on so few images lower the loss; the paper's 0.01 is for 128


def trials() -> list[Trial]:
    """A trial per network; one whose batch has 0 images is counted alone."""
    sizes = dict.fromkeys(TAKEN, BATCH_SIZE) | dict.fromkeys(COUNTED, 0)
    settings = {"rectifier": "prelu", "image_size": 224, "learning_rate": LEARNING_RATE, "momentum": 0.9}
    return [
        Trial(f"imagenet/{name}", {"network": name, "batch_size": size, **settings}) for name, size in sizes.items()
    ]


def count_and_train(settings: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Counts a network, and takes two training steps on one batch of random images where memory holds them.

    Args:
        settings: As `trials` makes them.
        folder: Not used.

    Returns:
        What `count` returns; `needed_mebibytes` and `free_mebibytes` of memory before the first step; and, where the
        former is the smaller, `step_seconds`, CPU time of the second step, and `losses` before and after both.
    """
    start_tensorflow(True)
    from keras_prelu.networks.paper import paper_network

    shape = (settings["image_size"], settings["image_size"], 3)
    network = paper_network(settings["network"], shape, rectifier=settings["rectifier"], seed=0)
    found = count(network)
    if not settings["batch_size"]:
        return found
    found |= {"needed_mebibytes": needed_mebibytes(found, settings["batch_size"]), "free_mebibytes": _free_mebibytes()}
    fits = found["needed_mebibytes"] < found["free_mebibytes"]
    return found | (_two_steps(network, settings) if fits else {})


def count(network: Any) -> dict[str, Any]:
    """The counts of a network: its `parameters` without `slopes`, its `rectifiers`, and the fields of `Counts`."""
    import keras

    from keras_prelu import PReLU
    from keras_prelu.layer.slopes import slope_layers
    from keras_prelu.networks.multiply_adds import multiply_adds

    weighted = (keras.layers.Conv2D, keras.layers.Dense)
    kept = (*weighted, PReLU, keras.layers.MaxPooling2D)
    rectifiers = slope_layers(network)
    slopes = sum(math.prod(rectifier.alpha.shape) for rectifier in rectifiers)
    return {
        "parameters": network.count_params() - slopes,
        "slopes": slopes,
        "rectifiers": len(rectifiers),
        "multiply_adds": multiply_adds(network),
        "weighted": _outputs(network, weighted),
        "kept": _outputs(network, kept),
    }


def _outputs(network: Any, kinds: Any) -> int:
    """Numbers per image that layers of some kinds put out."""
    return sum(math.prod(layer.output.shape[1:]) for layer in network.layers if isinstance(layer, kinds))


def needed_mebibytes(found: dict[str, Any], batch_size: int) -> float:
    """Memory of weights, their velocities, gradients and updates, and of activations and their gradients."""
    numbers = 4 * (found["parameters"] + found["slopes"]) + 2 * batch_size * found["kept"]
    return 4.0 * numbers / 2**20


def _free_mebibytes() -> float:
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))


def _two_steps(network: Any, settings: dict[str, Any]) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    images = tf.random.uniform((settings["batch_size"], *network.input_shape[1:]), -128, 128)
    labels = tf.random.uniform((settings["batch_size"],), 0, network.output_shape[-1], tf.int64)
    optimizer = keras.optimizers.SGD(settings["learning_rate"], momentum=settings["momentum"])
    optimizer.build(network.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(autograph=False)
    def evaluate() -> Any:
        return loss(labels, network(images, training=False))

    @tf.function(autograph=False)
    def step() -> Any:
        with tf.GradientTape() as tape:
            value = loss(labels, network(images, training=True))
        optimizer.apply(tape.gradient(value, network.trainable_variables))
        return value

    before = float(evaluate())
    float(step())  # compiles
    started = time.process_time()
    float(step())
    return {"step_seconds": time.process_time() - started, "losses": [before, float(evaluate())]}


def tables(records: Sequence[Record]) -> dict[str, str]:
    """Counts beside the paper's, the steps that were taken, and what the configs are projected to take."""
    fields = ("multiply_adds", "weighted", "kept")
    counts = {
        record["settings"]["network"]: Counts(
            parameters=record["parameters"] + record["slopes"], **{field: record[field] for field in fields}
        )
        for record in records
    }
    header = ("network", "parameters", "slopes per channel", "per layer", "multiply-adds", "the paper's", "difference")
    steps = ("network", "images", "MiB estimated", "MiB at the peak", "CPU seconds", "Gflop/s", "loss before", "after")
    return {
        "counts": figures.markdown(header, map(_count_row, records)),
        "steps": figures.markdown(steps, [_step_row(each) for each in records if "needed_mebibytes" in each]),
        **projection_tables(counts),
        "cost": figures.cost_table(records),
    }


def _count_row(record: Record) -> list[Any]:
    name, adds = record["settings"]["network"], record["multiply_adds"]
    paper = PAPER_MULTIPLY_ADDS.get(name)
    cells = [f"{paper:.2e}", f"{adds / paper - 1:+.1%}"] if paper else ["", ""]
    return [name, f"{record['parameters']:,}", f"{record['slopes']:,}", record["rectifiers"], f"{adds:.3e}", *cells]


def _step_row(record: Record) -> list[Any]:
    name, size = record["settings"]["network"], record["settings"]["batch_size"]
    needed = f"{record['needed_mebibytes']:,.0f}"
    if "step_seconds" not in record:
        return [name, size, needed, f"does not fit: {record['free_mebibytes']:,.0f} MiB are free", "", "", "", ""]
    rate = 6 * record["multiply_adds"] * size / record["step_seconds"] / 1e9
    losses = (f"{loss:.3f}" for loss in map(float, record["losses"]))  # one that is not finite is text in the file
    peak, seconds = f"{record['peak_mebibytes']:,.0f}", f"{record['step_seconds']:.1f}"
    return [name, size, needed, peak, seconds, f"{rate:.0f}", *losses]


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """Two bars per network: its weights and its multiply-adds, beside the paper's."""
    figure = figures.new_figure(9, 3.2)
    names = [record["settings"]["network"] for record in records]
    weights, adds = figure.subplots(1, 2)
    weights.barh(names, [record["parameters"] / 1e6 for record in records], color=figures.BLUE)
    weights.set_title("parameters, millions")
    adds.barh(names, [record["multiply_adds"] / 1e9 for record in records], color=figures.BLUE, label="counted")
    paper = [(name, PAPER_MULTIPLY_ADDS[name] / 1e9) for name in names if name in PAPER_MULTIPLY_ADDS]
    adds.plot([value for _, value in paper], [name for name, _ in paper], "|", color=figures.VERMILION, markersize=16,
              markeredgewidth=2, label="the paper's")  # fmt: skip
    adds.set_title("multiply-adds per image, billions")
    adds.legend(frameon=False)
    for axes in (weights, adds):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    return {"imagenet": figure}


STUDY = Study(
    claim="Tables 1 and 3: the networks of ImageNet at full size, counted, and what training them would take",
    trials=trials,
    take=count_and_train,
    tables=tables,
    plots=plots,
    parallel=False,
)
