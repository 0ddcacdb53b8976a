"""Predicted against measured signals in a small member of each family of keras.applications.

    python -m benchmarks.families [FAMILY ...] [--seed 0] [--write docs]

Every kernel is drawn by `initialize`; normal noise is fed forward and gradients of variance 1 backward. A row compares
`predict_gains` with `measure_gains` over the kernels of one model; `--write` leaves the table in docs/families.md.
"""

import argparse
import inspect
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_prelu import initialize, measure_gains, predict_gains

CLASSES = 10
FACTOR = 1.5  # a kernel whose prediction is within this factor of the measurement counts as near


@dataclass(frozen=True)
class Family:
    """A member of a family.

    Attributes:
        make: Its constructor.
        size: The side of its square images, in pixels.
        arguments: What the constructor gets beside the arguments that all have in common.
        scale: The standard deviation of the noise that it is fed.
        draws: The number of draws of weights over which mean squares are averaged.
    """

    make: Callable[..., keras.Model]
    size: int
    arguments: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    draws: int = 1

    def model(self) -> keras.Model:
        """Builds the member without weights, and without preprocessing and softmax where it has a choice."""
        choices = inspect.signature(self.make).parameters
        optional = {"include_preprocessing": False} if "include_preprocessing" in choices else {}
        return self.make(
            input_shape=(self.size, self.size, 3),
            weights=None,
            classes=CLASSES,
            classifier_activation=None,
            **optional,
            **self.arguments,
        )

    def batch(self, images: int, seed: int) -> np.ndarray:
        """Normal noise of variance 1, times the scale."""
        rng = np.random.default_rng(seed)
        return rng.standard_normal((images, self.size, self.size, 3), "float32") * np.float32(self.scale)


_APPS = keras.applications
FAMILIES = {
    # Without a normalization, deep layers of one draw lie 35 % (standard deviation) about the mean of all draws.
    "VGG": Family(_APPS.VGG16, 32, draws=8),
    "ResNet": Family(_APPS.ResNet50, 64),
    "ResNetV2": Family(_APPS.ResNet50V2, 64),
    "MobileNet": Family(_APPS.MobileNet, 96, {"alpha": 0.25}),
    "MobileNetV2": Family(_APPS.MobileNetV2, 96, {"alpha": 0.35}),
    "MobileNetV3": Family(_APPS.MobileNetV3Small, 96),
    "EfficientNet": Family(_APPS.EfficientNetB0, 96, scale=255.0),  # divides by 255 itself
    "EfficientNetV2": Family(_APPS.EfficientNetV2B0, 96),
    "DenseNet": Family(_APPS.DenseNet121, 64),
    "ConvNeXt": Family(_APPS.ConvNeXtTiny, 64),
    "Inception": Family(_APPS.InceptionV3, 96),
    "InceptionResNet": Family(_APPS.InceptionResNetV2, 96),
    "NASNet": Family(_APPS.NASNetMobile, 64),
    "Xception": Family(_APPS.Xception, 96),
}


@dataclass(frozen=True)
class Comparison:
    """Predicted over measured mean squares of a model's layers, by the layer's name, and what was not placed."""

    forward: dict[str, float]
    backward: dict[str, float]
    unplaced: dict[str, str]

    @property
    def worst(self) -> tuple[str, float]:
        """The layer whose forward ratio is farthest from 1, and that ratio."""
        return max(self.forward.items(), key=lambda item: _distance(item[1]))


def compare(family: Family, seed: int = 0, images: int = 16) -> Comparison:
    """Initializes a member, and predicts and measures it.

    Args:
        family: The member.
        seed: The seed of the first draw of weights and of its batch.
        images: The number of images in the batch.

    Returns:
        The ratios. A layer for which nothing is predicted has the ratio NaN.
    """
    keras.utils.set_random_seed(seed)  # of dropout
    model = family.model()
    predicted, measured, unplaced = [], [], {}
    for draw in range(seed, seed + family.draws):
        unplaced |= initialize(model, seed=draw).unplaced
        batch = family.batch(images, draw)
        predicted += predict_gains(model, batch).rows
        measured += measure_gains(model, batch, seed=draw).rows
    return Comparison(*_ratios(_totals(predicted), _totals(measured)), unplaced)


def _totals(rows: Sequence[Any]) -> dict[str, np.ndarray]:
    """The forward and the backward mean square of each layer, summed over the draws."""
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for row in rows:
        totals[row.name] += (row.forward_mean_square, row.backward_mean_square)
    return totals


def _ratios(predicted: dict[str, np.ndarray], measured: dict[str, np.ndarray]) -> Iterator[dict[str, float]]:
    for direction in range(2):
        yield {name: float(predicted[name][direction] / total[direction]) for name, total in measured.items()}


def missed(comparison: Comparison) -> list[str]:
    """The targets that a comparison misses."""
    forward, backward = list(comparison.forward.values()), list(comparison.backward.values())
    targets = {
        "unplaced": not comparison.unplaced,
        "forward": median_error(forward) <= 0.1,
        "within 1.5": share_near(forward) >= 0.95,
        "backward": median_error(backward) <= 0.25,
    }
    return [name for name, met in targets.items() if not met]


def median_error(ratios: Sequence[float]) -> float:
    """The median of |ratio - 1|; a ratio of NaN counts as infinitely far."""
    return float(np.median(np.nan_to_num(np.abs(np.asarray(ratios) - 1), nan=math.inf)))


def share_near(ratios: Sequence[float]) -> float:
    """The fraction of ratios between 1 / FACTOR and FACTOR."""
    return sum(_distance(ratio) <= math.log(FACTOR) for ratio in ratios) / len(ratios)


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf  # NaN is not above 0


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the noise")
    parser.add_argument("--images", type=int, default=16, help="images in the batch")
    parser.add_argument("--write", type=Path, help="the folder for families.md")
    arguments = parser.parse_args()
    unknown = set(arguments.families) - set(FAMILIES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(FAMILIES)}")
    lines = [*HEADER]
    print("\n".join(lines), flush=True)
    for name in arguments.families or FAMILIES:
        start = time.process_time()
        lines.append(_line(name, FAMILIES[name], compare(FAMILIES[name], arguments.seed, arguments.images)))
        print(lines[-1], f"{time.process_time() - start:.0f} s", flush=True)
        keras.backend.clear_session()
    if arguments.write:
        (arguments.write / "families.md").write_text(f"{INTRODUCTION}\n" + "\n".join(lines) + "\n")


HEADER = (
    "| family | member | layers | unplaced | forward: median error | within 1.5 | backward: median error | within 1.5 "
    "| farthest forward | misses |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
INTRODUCTION = """# Signals in the families of keras.applications

This page shows how close `predict_gains` comes in real architectures.

`python -m benchmarks.families --write docs` lets `initialize` draw the kernels of a small member of each family. For
each layer with a kernel, `predict_gains` predicts two mean squares: of the output (forward) and of its gradient
(backward). `measure_gains` measures them as in training, with 16 images of normal noise and gradients of variance 1.

| column | meaning | target |
|---|---|---|
| unplaced | kernels that `initialize` left alone | 0 |
| median error | median over layers of the difference, relative to the measurement | 10 % forward, 25 % backward |
| within 1.5 | share of layers where the two differ by a factor of at most 1.5 | 95 % forward |
| farthest forward | the worst layer, and prediction / measurement | |
| misses | targets that the family misses | |

The weights are one draw, in VGG eight. Part of the errors is chance: one draw differs from the mean of four by 18 %
in VGG, and by 1 to 5 % in families without squeeze-and-excitation (median over layers, forward; backward 4 to 10 %).
EfficientNet drops whole branches at random: its backward error was 23 to 64 % from run to run.

These are approximate:

- Values in a window of max pooling count as equally correlated, and gradients of parallel branches as independent.
- Layers count as wide, but a fifth of EfficientNet's are the reducing layers of squeeze-and-excitation, with 4 to 48
  channels.
- Batch normalization divides the gradient by stds that differ, which counts to first order, and subtracts a part of
  it. With 16 images of 1 x 1 positions both effects are large. For InceptionResNet their sum is wrong: without the
  first, the median error is 18 %, but that of Xception grows.

Xception and NASNet lose about 5 % of the gradient per separable convolution, for an unknown reason.
"""


def _line(name: str, family: Family, comparison: Comparison) -> str:
    forward, backward = list(comparison.forward.values()), list(comparison.backward.values())
    worst, ratio = comparison.worst
    cells = [
        name,
        f"{family.make.__name__}, {family.size} pixels",
        len(forward),
        len(comparison.unplaced),
        *(f"{figure:.1%}" for figure in (median_error(forward), share_near(forward))),
        *(f"{figure:.1%}" for figure in (median_error(backward), share_near(backward))),
        f"`{worst}` {ratio:.2f}",
        ", ".join(missed(comparison)),
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
