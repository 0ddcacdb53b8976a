"""Section 2.1: the time and the memory of a training step for each rectifier, beside ReLU's."""

import itertools
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from training.environment import ONEDNN, start_tensorflow
from training.reproduce import figures
from training.reproduce.study import Study
from training.reproduce.trial import Record, Trial

KERNELS: dict[str, dict[str, Any]] = {
    "on": {"onednn": True, "precision": "float32"},
    "off": {"onednn": False, "precision": "float32"},
    "bfloat16": {"onednn": True, "precision": "mixed_bfloat16"},
}
TITLES = {"on": "oneDNN, float32", "off": "TensorFlow's own, float32", "bfloat16": "oneDNN, mixed_bfloat16"}
COLOURS = {"on": figures.BLUE, "off": figures.VERMILION, "bfloat16": figures.GREEN}
BASE, KERAS = "relu", "prelu of Keras"
RECTIFIERS = {  # and whose layer it is
    BASE: "Keras",
    "leaky_relu_0.01": "Keras",
    "prelu_shared": "keras_prelu",
    "prelu": "keras_prelu",
    KERAS: "Keras",
}
ROUNDS = range(5)
SIZES: dict[str, Any] = {"filters": [32, 64, 128], "image_size": 32, "batch_size": 64, "warmup_steps": 3, "steps": 20}
FEW: dict[str, Any] = {"batch_size": 2, "warmup_steps": 0, "steps": 1}
SECONDS, MEBIBYTES, GROWN = "step_seconds", "step_mebibytes", "grown_mebibytes"
_RATE = 1e-3


def trials() -> list[Trial]:
    """A step on few images with each rectifier; rounds in which all of them follow each other with the same kernels."""
    few = [_trial(kernels, rectifier, 0, "few", FEW) for kernels, rectifier in itertools.product(KERNELS, RECTIFIERS)]
    cases = itertools.product(ROUNDS, KERNELS, RECTIFIERS)
    return few + [_trial(kernels, rectifier, turn, str(turn), {}) for turn, kernels, rectifier in cases]


def _trial(kernels: str, rectifier: str, turn: int, name: str, sizes: dict[str, Any]) -> Trial:
    settings = {"kernels": kernels, "rectifier": rectifier, "round": turn, **KERNELS[kernels], **SIZES, **sizes}
    return Trial(f"cost/{kernels}-{rectifier.replace(' ', '_')}-{name}", settings)


def measure(settings: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Measures training steps of a plain network on random images; it reads Linux's /proc.

    Args:
        settings: As `trials` makes them.
        folder: Not used.

    Returns:
        `step_seconds`, the median CPU time per step behind those that warm up; `step_mebibytes`, the peak of memory
        beyond what the process held before the first of all steps; `loss`, that of the last step.
    """
    os.environ.pop(ONEDNN, None)  # would come before the setting
    start_tensorflow(settings["onednn"])
    step = _make_step(settings)
    held, seconds, loss = restart_peak(), [], 0.0
    for _ in range(settings["warmup_steps"] + settings["steps"]):
        started = time.process_time()
        loss = float(step())
        seconds.append(time.process_time() - started)
    median = statistics.median(seconds[settings["warmup_steps"] :])
    return {SECONDS: median, MEBIBYTES: mebibytes("VmHWM") - held, "loss": loss}


def _make_step(settings: dict[str, Any]) -> Callable[[], Any]:
    """A forward pass, a gradient and an update without momentum, compiled together."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    shape = (settings["image_size"], settings["image_size"], 3)
    network = build_network(shape, settings)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    images = tf.random.uniform((settings["batch_size"], *shape), 0, 255)
    labels = tf.random.uniform((settings["batch_size"],), 0, 10, tf.int64)

    @tf.function(autograph=False)
    def step() -> Any:
        with tf.GradientTape() as tape:
            value = loss(labels, network(images, training=True))
        weights = network.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(value, weights), strict=True):
            weight.assign_sub(_RATE * gradient)
        return value

    return step


def build_network(shape: tuple[int, int, int], settings: dict[str, Any]) -> Any:
    """The plain network with a rectifier and a precision of the settings."""
    import keras

    from training.reproduce.network import plain_network

    keras.config.set_dtype_policy(settings["precision"])
    rectifier = BASE if settings["rectifier"] == KERAS else settings["rectifier"]
    network = plain_network(shape, 10, filters=settings["filters"], rectifier=rectifier)
    if settings["rectifier"] == KERAS:
        network = keras.models.clone_model(network, clone_function=_with_prelu_of_keras)
    keras.config.set_dtype_policy("float32")
    return network


def _with_prelu_of_keras(layer: Any) -> Any:
    import keras

    if not isinstance(layer, keras.layers.ReLU):
        return type(layer).from_config(layer.get_config())
    axes = [1, 2] if len(layer.output.shape) == 4 else None  # behind a dense layer there are no positions
    return keras.layers.PReLU(keras.initializers.Constant(0.25), shared_axes=axes, name=layer.name)


def restart_peak() -> float:
    """Makes the process's peak of memory start anew, and returns what it holds."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return mebibytes("VmRSS")


def mebibytes(field: str) -> float:
    """A field of the process's status: `VmRSS`, what it holds, or `VmHWM`, the peak of that."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def of_rounds(records: Sequence[Record]) -> list[Record]:
    """The records of rounds, each with what it holds beyond a step on few images, which is for compiling."""
    few = {_case(record): record[MEBIBYTES] for record in records if _has_few_images(record)}
    return [
        record | {GROWN: record[MEBIBYTES] - few[_case(record)]}
        for record in records
        if not _has_few_images(record) and _case(record) in few
    ]


def _has_few_images(record: Record) -> bool:
    return bool(record["settings"]["batch_size"] == FEW["batch_size"])


def _case(record: Record) -> tuple[str, str]:
    return record["settings"]["kernels"], record["settings"]["rectifier"]


def ratios(records: Sequence[Record], kernels: str, rectifier: str, figure: str) -> list[float]:
    """A figure of a rectifier over ReLU's of the same round, with the same kernels, for each round that has both."""
    of, base = (_by_round(records, (kernels, each), figure) for each in (rectifier, BASE))
    return [of[turn] / base[turn] for turn in sorted(of.keys() & base.keys())]


def _by_round(records: Sequence[Record], case: tuple[str, str], figure: str) -> dict[int, float]:
    return {record["settings"]["round"]: record[figure] for record in records if _case(record) == case}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper one: of five values the second, third and fourth."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return low, median, high


def tables(records: Sequence[Record]) -> dict[str, str]:
    """Medians and ratios to ReLU."""
    rounds = of_rounds(records)
    rows = (_row(rounds, kernels, rectifier) for kernels, rectifier in itertools.product(KERNELS, RECTIFIERS))
    header = ["kernels", "rectifier", "layer of", "rounds", "CPU ms per step", "over ReLU (quartiles)"]
    header += ["peak MiB", "MiB without compiling", "over ReLU (quartiles)"]
    return {"steps": figures.markdown(header, filter(None, rows)), "cost": figures.cost_table(records)}


def _row(rounds: Sequence[Record], kernels: str, rectifier: str) -> list[Any]:
    """A row of the table; empty where there is no round with ReLU as well."""
    names = (SECONDS, MEBIBYTES, GROWN)
    seconds, peak, grown = ([*_by_round(rounds, (kernels, rectifier), name).values()] for name in names)
    of_time, of_memory = (ratios(rounds, kernels, rectifier, name) for name in (SECONDS, GROWN))
    if not of_time:
        return []
    return [
        *(TITLES[kernels], rectifier, RECTIFIERS[rectifier], len(of_time)),
        *(f"{1_000 * statistics.median(seconds):.1f}", _spread(of_time)),
        *(f"{statistics.median(peak):.0f}", f"{statistics.median(grown):.0f}", _spread(of_memory)),
    ]


def _spread(values: Sequence[float]) -> str:
    low, median, high = quartiles(values)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """Bars of the ratios to ReLU: time and memory."""
    figure = figures.new_figure(9, 3.6)
    panels = ((SECONDS, "CPU time of a step, over ReLU's"), (GROWN, "memory without compiling, over ReLU's"))
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for index, kernels in enumerate(KERNELS):
            _draw(axes, of_rounds(records), kernels, name, 0.26 * (index - 1))
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(title)
        axes.set_yticks(range(len(RECTIFIERS) - 1), list(RECTIFIERS)[1:])
        figures.tidy(axes)
        axes.grid(visible=False, axis="y")
    figure.axes[0].invert_yaxis()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return {"cost": figure}


def _draw(axes: Any, records: Sequence[Record], kernels: str, name: str, offset: float) -> None:
    """A bar per rectifier, with a line from the lower to the upper quartile."""
    found = [ratios(records, kernels, rectifier, name) for rectifier in RECTIFIERS if rectifier != BASE]
    places = [index + offset for index, each in enumerate(found) if each]
    if places:
        lows, medians, highs = zip(*(quartiles(each) for each in found if each), strict=True)
        spread = [[m - low for m, low in zip(medians, lows, strict=True)],
                  [high - m for m, high in zip(medians, highs, strict=True)]]  # fmt: skip
        style = {"color": COLOURS[kernels], "label": TITLES[kernels], "error_kw": {"linewidth": 0.8}}
        axes.barh(places, medians, height=0.24, xerr=spread, **style)


STUDY = Study(
    claim="Section 2.1: time and memory of a training step for each rectifier",
    trials=trials,
    take=measure,
    tables=tables,
    plots=plots,
    parallel=False,
)
