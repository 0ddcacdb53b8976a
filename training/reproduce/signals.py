"""Equations 7 to 15: signals and gradients by layer, predicted and measured, in plain networks of 14 to 100 layers."""

import itertools
import math
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from training.config import Config
from training.environment import start_tensorflow
from training.reproduce import figures
from training.reproduce.study import Study
from training.reproduce.train import first_test_batch
from training.reproduce.trial import Record, Trial

DEPTHS = (14, 30, 60, 100)
RULES = ("he_forward", "he_backward", "xavier", "fixed_0.01")
SETTINGS: dict[str, Any] = {
    "filters": [16, 32, 64],
    "rules": list(RULES),
    "rectifiers": ["relu", "prelu"],
    "seeds": [0, 1, 2],
    "config": {"dataset": "cifar10", "test_split": "test[:64]", "batch_size": 64},
}
COLOURS = dict(zip(RULES, (figures.BLUE, figures.GREEN, figures.VERMILION, figures.PURPLE), strict=True))
SMALLEST = 1.1755e-38  # float32's smallest number that keeps all of its digits; TensorFlow makes smaller ones 0
COMPARED = 1e-30  # with a mean square below it, the squares of some numbers are 0 in float32
VANISHED = SMALLEST**2  # with a mean square below it, the numbers themselves are

Network = dict[str, Any]


def trials() -> list[Trial]:
    """A trial per depth, for measuring takes less time than starting TensorFlow."""
    return [Trial(f"signals/{depth}", {"depth": depth, **SETTINGS}) for depth in DEPTHS]


def predict_and_measure(settings: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Predicts and measures the mean squares in a network per rule, rectifier and seed.

    Args:
        settings: `depth` and `filters` of `plain_network`; `rules`, `rectifiers` and `seeds`; `config`, fields of a
            Config whose first test batch is the images.
        folder: Not used.

    Returns:
        `networks`: for each its rule, rectifier, seed and, `forward` and `backward`, the `predicted` and `measured`
        mean squares by layer and `equations`, the log10 of the product of the gains.
    """
    start_tensorflow(True)
    batch = first_test_batch(Config(**settings["config"]))
    cases = itertools.product(settings["rules"], settings["rectifiers"], settings["seeds"])
    return {"networks": [_network(case, settings, batch) for case in cases]}


def _network(case: tuple[str, str, int], settings: dict[str, Any], batch: dict[str, Any]) -> Network:
    from keras_prelu import measure_gains, predict_gains
    from training.reproduce.network import plain_network, start

    rule, rectifier, seed = case
    sizes = {"depth": settings["depth"], "filters": settings["filters"]}
    images = batch["images"]
    network = plain_network(tuple(images.shape[1:]), batch["num_classes"], rectifier=rectifier, **sizes)
    start(network, rule, seed)
    predicted, measured = predict_gains(network, images).rows, measure_gains(network, images, seed=seed).rows
    found: Network = {"rule": rule, "rectifier": rectifier, "seed": seed}
    for direction in ("forward", "backward"):
        found[direction] = {
            "equations": sum(math.log10(getattr(row, f"{direction}_gain")) for row in predicted),
            "predicted": [getattr(row, f"{direction}_mean_square") for row in predicted],
            "measured": [getattr(row, f"{direction}_mean_square") for row in measured],
        }
    return found


def tables(records: Sequence[Record]) -> dict[str, str]:
    """The forward signal at the last kernel, the gradient at the first, and the cost."""
    header = ("rule", "rectifier", "layers", "equations", "predicted", "measured", "largest ratio", "measured as 0")
    return {
        "forward": figures.markdown(header, [row for record in records for row in _rows(record, "forward", -1)]),
        "backward": figures.markdown(header, [row for record in records for row in _rows(record, "backward", 0)]),
        "cost": figures.cost_table(records),
    }


def _rows(record: Record, direction: str, end: int) -> Iterator[list[Any]]:
    cases: dict[tuple[str, str], list[Network]] = {}
    for network in record["networks"]:
        cases.setdefault((network["rule"], network["rectifier"]), []).append(network)
    for case, networks in cases.items():
        signals = [network[direction] for network in networks]
        factors = [factor for network in networks for factor in ratios(network, direction)]
        yield [
            *case,
            record["settings"]["depth"],
            f"{statistics.mean(each['equations'] for each in signals):.1f}",
            f"{statistics.mean(math.log10(each['predicted'][end]) for each in signals):.1f}",
            log10([each["measured"][end] for each in signals]),
            f"{max(factors):.1f}" if factors else "",
            zeros(signals),
        ]


def log10(values: Sequence[float]) -> str:
    """The mean and the standard deviation of logarithms; how many values are 0, where some are."""
    logarithms = [math.log10(value) for value in values if value]
    if not logarithms:
        return "0"
    mean, zero = figures.mean_and_std(logarithms, 1), len(values) - len(logarithms)
    return f"{mean}; 0 in {zero} of {len(values)}" if zero else mean


def ratios(network: Network, direction: str) -> list[float]:
    """The factors, 1 or more, between prediction and measurement at the layers where float32 can tell."""
    signal, outputs = network[direction], network["forward"]["predicted"]
    return [
        max(predicted / measured, measured / predicted)
        for predicted, measured, output in zip(signal["predicted"], signal["measured"], outputs, strict=True)
        if min(predicted, measured) > COMPARED and output > VANISHED
    ]


def zeros(signals: Sequence[dict[str, Any]]) -> str:
    """The number of layers that were measured as 0, or its range over the seeds."""
    counts = [signal["measured"].count(0.0) for signal in signals]
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def plots(records: Sequence[Record]) -> dict[str, Any]:
    """The mean squares over the layers of the deepest networks, those with PReLU."""
    deepest = max(records, key=lambda record: int(record["settings"]["depth"]))
    figure = figures.new_figure(10, 4)
    panels = {"forward": "mean square of the outputs", "backward": "mean square of the gradient"}
    for axes, (direction, title) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        for network in deepest["networks"]:
            if network["rectifier"] == "prelu":
                _draw(axes, network, direction)
        axes.axhline(SMALLEST, color="black", linewidth=0.8, linestyle=":", label="smallest number of float32")
        axes.set(title=title, xlabel="layer", yscale="log", ylim=(1e-41, 1e3))
        figures.tidy(axes)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return {"signals": figure}


def _draw(axes: Any, network: Network, direction: str) -> None:
    """A line for the prediction with the first seed; dots for what was measured with each."""
    signal, colour = network[direction], COLOURS[network["rule"]]
    layers = range(1, len(signal["predicted"]) + 1)
    if network["seed"] == 0:
        axes.plot(layers, signal["predicted"], color=colour, linewidth=1.2, label=network["rule"])
    axes.plot(layers, signal["measured"], ".", color=colour, markersize=3)  # a logarithmic axis leaves zeros out


STUDY = Study(
    claim="Equations 7 to 15: signals and gradients by layer, predicted and measured",
    trials=trials,
    take=predict_and_measure,
    tables=tables,
    plots=plots,
)
