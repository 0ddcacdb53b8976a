"""Draws the plots of docs/signals.md: predictions as curves, measurements as dots.

    python docs/signals.py [--quick] [--into docs]

It needs NumPy, Keras with a backend, and matplotlib (`pip install -e .[plots]`). `--quick` takes fewer samples and
layers, to see that everything runs.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_prelu import PReLU, initialize, kernel_places, measure_gains, predict_gains
from training.reproduce.figures import BLUE, GREEN, PURPLE, VERMILION, save, tidy

COLOURS, MARKERS = (BLUE, VERMILION, GREEN, PURPLE), "osD^"


@dataclass(frozen=True)
class Effort:
    """The size of the experiments.

    Attributes:
        samples: The number of values per Monte Carlo estimate.
        width: The units per layer of the plain network.
        depth: Its number of layers.
        model: Makes the network of the last plot.
        images: The number of images that it is fed.
    """

    samples: int
    width: int
    depth: int
    model: Callable[[], keras.Model]
    images: int


def mobile_net() -> keras.Model:
    """MobileNetV3Small for images of 64 pixels, without preprocessing and softmax."""
    return keras.applications.MobileNetV3Small(
        (64, 64, 3), weights=None, classes=10, classifier_activation=None, include_preprocessing=False
    )


def small_chain() -> keras.Model:
    """Two convolutions and a Dense layer."""
    convolutions = [keras.layers.Conv2D(32, 3, activation="relu") for _ in range(2)]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((16, 16, 3)), *convolutions, *head])


FULL = Effort(samples=1_000_000, width=1000, depth=60, model=mobile_net, images=64)
QUICK = Effort(samples=10_000, width=50, depth=5, model=small_chain, images=4)


def activations(effort: Effort) -> Figure:
    """E[f^2] / E[x^2] and E[f'^2] over the standard deviation of x."""
    figure = _figure(9, 3.6)
    forward, backward = figure.subplots(1, 2)
    stds, few = np.geomspace(0.25, 4, 25), np.geomspace(0.25, 4, 7)
    normal = np.random.default_rng(0).normal(size=effort.samples)
    for name, colour, marker in zip(("relu", "gelu", "tanh", "selu"), COLOURS, MARKERS, strict=True):
        predicted = np.array([_gains_of(name, std) for std in stds])
        sampled = np.array([_sampled(getattr(keras.ops, name), std * normal) for std in few])
        for column, axes in enumerate((forward, backward)):
            axes.plot(stds, predicted[:, column], color=colour, label=name)
            axes.plot(few, sampled[:, column], marker, color=colour, markersize=5, markerfacecolor="white")
    for axes, title in ((forward, "E[f(x)²] / E[x²]"), (backward, "E[f'(x)²]")):
        axes.set_title(title)
        axes.set_xlabel("standard deviation of x")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
    forward.legend(frameon=False)
    return figure


def _gains_of(activation: str, std: float) -> tuple[float, float]:
    """The predicted effect of an activation on a signal and on a gradient."""
    dense = [keras.layers.Dense(1, activation, name="before"), keras.layers.Dense(1, name="behind")]
    model = keras.Sequential([keras.Input((1,)), *dense])
    for layer, weight in zip(dense, (std, 1.0), strict=True):
        layer.kernel.assign([[weight]])
    before, behind = predict_gains(model).rows
    return behind.forward_gain, before.backward_gain / std**2


def _sampled(function: Callable[[Any], Any], values: np.ndarray) -> tuple[float, float]:
    step = 1e-3 * float(values.std())
    below, here, above = (
        keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(values + each, "float64")))
        for each in (-step, 0.0, step)
    )
    return float(np.mean(here**2) / np.mean(values**2)), float(np.mean(((above - below) / (2 * step)) ** 2))


def sums(effort: Effort) -> Figure:
    """The second moment of a sum of ReLU branches."""
    figure = _figure(5.5, 3.8)
    axes = figure.subplots()
    numbers = np.arange(1, 9)
    places = [kernel_places(_branches(int(number)))[-1] for number in numbers]
    axes.plot(numbers, [place.before.second_moment for place in places], color=BLUE, label="variances and means")
    axes.plot(numbers, numbers / 2, "--", color=VERMILION, label="second moments only: n / 2")
    rng = np.random.default_rng(0)
    for number in (1, 2, 4, 8):
        total = sum(np.maximum(rng.normal(size=effort.samples), 0) for _ in range(number))
        label = "measured" if number == 1 else None
        axes.plot(number, np.mean(total**2), "o", color="black", markersize=6, markerfacecolor="white", label=label)
    axes.set_xlabel("n, number of ReLU branches")
    axes.set_ylabel("second moment of their sum")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def _branches(number: int) -> keras.Model:
    inputs = keras.Input((8,))
    branches = [keras.layers.Dense(8, "relu")(inputs) for _ in range(number)]
    return keras.Model(inputs, keras.layers.Dense(8)(keras.layers.add(branches) if number > 1 else branches[0]))


def likeness(effort: Effort) -> Figure:
    """C(0) over the depth of plain networks."""
    figure = _figure(6.5, 3.8)
    axes = figure.subplots()
    tailored = initialize(_chain(effort.depth, 0.25), tailor=0.9).tailoring.slope
    cases = ((0.0, "slope 0 (ReLU)"), (0.25, "slope 0.25"), (tailored, f"tailored: slope {tailored:.3g}"))
    for (slope, label), colour, marker in zip(cases, COLOURS, MARKERS, strict=False):
        model = _chain(effort.depth, slope)
        initialize(model, seed=0)
        predicted = [row.likeness for row in predict_gains(model).rows]
        axes.plot(range(1, effort.depth + 1), predicted, color=colour, label=label)
        measured = _measured_likeness(effort, slope)
        dots = range(0, effort.depth, max(effort.depth // 12, 1))
        axes.plot([dot + 1 for dot in dots], [measured[dot] for dot in dots], marker, color=colour, markersize=5,
                  markerfacecolor="white")  # fmt: skip
    axes.set_xlabel("layer")
    axes.set_ylabel("C(0)")
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False)
    return figure


def _chain(depth: int, slope: float) -> keras.Model:
    model = keras.Sequential([keras.Input((8,))])
    for _ in range(depth):
        model.add(keras.layers.Dense(8))
        model.add(PReLU(slope))
    return model


def _measured_likeness(effort: Effort, slope: float) -> list[float]:
    """E[y y'] / E[y^2] of the layers of a wide network, over pairs of independent inputs."""
    rng, images, found = np.random.default_rng(0), 32, []
    signal = rng.normal(size=(images, effort.width))
    for layer in range(effort.depth):
        variance = (1 if layer == 0 else 2 / (1 + slope**2)) / effort.width
        signal = signal @ rng.normal(0, np.sqrt(variance), (effort.width, effort.width))
        products = signal @ signal.T
        squares = np.trace(products)
        found.append((products.sum() - squares) / (images - 1) / squares)
        signal = np.maximum(signal, slope * signal)
    return found


def depth(effort: Effort) -> Figure:
    """Predicted and measured mean square at each kernel of a network."""
    figure = _figure(8, 3.8)
    axes = figure.subplots()
    keras.utils.set_random_seed(0)
    model = effort.model()
    initialize(model, seed=0)
    batch = np.random.default_rng(0).normal(size=(effort.images, *model.input_shape[1:])).astype("float32")
    predicted = {row.name: row.forward_mean_square for row in predict_gains(model, batch).rows}
    measured = {row.name: row.forward_mean_square for row in measure_gains(model, batch, training=True).rows}
    names = [name for name in measured if name in predicted]
    axes.plot([predicted[name] for name in names], color=BLUE, label="predict_gains")
    axes.plot([measured[name] for name in names], "o", color=VERMILION, markersize=4, markerfacecolor="white",
              label="measure_gains")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel(f"kernel of {model.name}, in the order of the calls")
    axes.set_ylabel("mean square of the output")
    axes.legend(frameon=False)
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", dpi=100)


PLOTS: dict[str, Callable[[Effort], Figure]] = {
    "activations": activations,
    "sums": sums,
    "likeness": likeness,
    "depth": depth,
}


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line and writes a file per plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples and layers")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, help="the folder for the plots")
    parsed = parser.parse_args(arguments)
    for name, plot in PLOTS.items():
        figure = plot(QUICK if parsed.quick else FULL)
        for axes in figure.axes:
            tidy(axes)
        save(figure, parsed.into / f"signals_{name}.svg")


if __name__ == "__main__":
    main()
