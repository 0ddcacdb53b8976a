"""Projects from counted operations and bytes what the ImageNet configs would take on GPUs; measures nothing.

    python -m benchmarks.projection [--gpus 8] [--teraflops 60] [--bfloat16 120] [--memory 1500] [--link 100]

A step of a config takes three times:

- arithmetic: three times the multiply-adds of a forward pass, two operations each, at a rate that a GPU is assumed to
  hold in the config's precision;
- memory: the passes over weights and activations that `_Passes` lists, at the bandwidth that a GPU is assumed to hold;
- the sum of the gradients: 2 (n - 1) / n times their float32 bytes over each of n GPUs' links.

The hours are those where nothing overlaps, and those where the sums hide behind the backward pass as far as it lasts:
gradients are summed in packs while others are computed, but not where XLA compiles the backward pass as one. Reading
and decoding must keep up, and evaluations come on top. GiB of weights are those of weights, velocities, gradients and
their sums; GiB of activations those that the backward pass reads on a GPU: the output of each convolution, dense layer,
rectifier and pooling.
"""

import argparse
import functools
import math
from dataclasses import dataclass, replace

import keras

from keras_prelu import PReLU
from keras_prelu.networks.multiply_adds import multiply_adds
from keras_prelu.networks.paper import paper_network
from training.config import Config, load_config

IMAGES = 1_281_167  # of ImageNet 2012's training split
CONFIGS = ("imagenet_14layer", "imagenet_a", "imagenet_b", "imagenet_c", "imagenet_a_fast", "imagenet_c_fast")
COPIES = 4
COLUMNS = (
    *("", "parameters", "multiply-adds per image", "ms of arithmetic", "of memory", "of sums"),
    *("hours", "hours, sums hidden", "images/s to decode", "GB/s of JPEG"),
    *("GiB of weights", "GiB of activations per GPU", "GiB per checkpoint"),
)
JPEG = 110e3  # bytes of an image on average


@dataclass(frozen=True)
class _Passes:
    """Reads and writes of memory per step: of each weight, and of each output of a layer with weights.

    Attributes:
        weights: Forward and backward pass 3; packing and unpacking for the sum 4; the norm 1; L2 5, momentum 7 and the
            update 3, or 5 for all of them where XLA fuses them.
        activations: The convolution before it 4 and the one behind it 3; bias 3, or 1 where XLA fuses it; PReLU 11
            forward and 11 backward, or 2 and 5.
    """

    weights: int
    activations: int


_SEPARATE, _FUSED = _Passes(weights=23, activations=32), _Passes(weights=13, activations=15)


@dataclass(frozen=True)
class Machine:
    """GPUs, and what each is assumed to hold: operations per second, bytes per second of its memory and of its link."""

    gpus: int
    flops: float
    bfloat16_flops: float
    memory: float
    link: float


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projection", description=__doc__)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--teraflops", type=float, default=60, help="in float32: a third of an A100's TF32 peak is 52")
    parser.add_argument("--bfloat16", type=float, default=120, help="Tflop/s in bfloat16: an A100's peak is 312")
    parser.add_argument("--memory", type=float, default=1500, help="GB/s of a GPU's memory: an A100's peak is 1555")
    parser.add_argument("--link", type=float, default=100, help="GB/s that a GPU exchanges in an all-reduce")
    given = parser.parse_args()
    machine = Machine(given.gpus, given.teraflops * 1e12, given.bfloat16 * 1e12, given.memory * 1e9, given.link * 1e9)
    print(
        f"Projected: {given.gpus} GPUs at {given.teraflops:g} Tflop/s in float32 and {given.bfloat16:g} in bfloat16, "
        f"{given.memory:g} GB/s of memory and {given.link:g} GB/s between them each.\n"
    )
    print(f"| {' | '.join(COLUMNS)} |")
    print("|" + "---|" * len(COLUMNS))
    for name in CONFIGS:
        config = load_config(name)
        print(line(name, config, machine))
        if name.endswith("fast"):
            print(line(f"{name}, XLA", replace(config, xla=True), machine))


def line(name: str, config: Config, machine: Machine) -> str:
    """A config's row."""
    parameters, adds, weighted, kept = _counts(config.network, config.rectifier)
    weighted, kept = (each * config.batch_size / machine.gpus for each in (weighted, kept))
    half = config.precision != "float32"
    passes = _FUSED if config.xla else _SEPARATE
    size = 2 if half else 4
    arithmetic = 6 * adds * config.batch_size / machine.gpus / (machine.bfloat16_flops if half else machine.flops)
    memory = (4 * passes.weights * parameters + size * passes.activations * weighted) / machine.memory
    sums = 2 * (machine.gpus - 1) / machine.gpus * 4 * parameters / machine.link
    backward = 2 / 3 * (arithmetic + size * passes.activations * weighted / machine.memory)
    total = arithmetic + memory + sums
    least = total - (0 if config.xla else min(sums, backward))
    hours = (IMAGES * config.epochs * each / config.batch_size / 3_600 for each in (total, least))
    rate = config.batch_size / least
    cells = (
        *(name, f"{parameters:,}", f"{adds:.3g}"),
        *(f"{1_000 * each:.1f}" for each in (arithmetic, memory, sums)),
        *(f"{each:.1f}" for each in hours),
        *(f"{rate:,.0f}", f"{rate * JPEG / 1e9:.2f}"),
        *(f"{each / 2**30:.1f}" for each in (4 * COPIES * parameters, size * kept, 8 * parameters)),
    )
    return f"| {' | '.join(cells)} |"


@functools.cache
def _counts(network: str, rectifier: str) -> tuple[int, int, int, int]:
    """Parameters; and per image multiply-adds, numbers that layers with weights put out, numbers that are kept."""
    model = paper_network(network, rectifier=rectifier)
    weighted = (keras.layers.Conv2D, keras.layers.Dense)
    kept = (*weighted, PReLU, keras.layers.MaxPooling2D)
    outputs = (
        sum(math.prod(layer.output.shape[1:]) for layer in model.layers if isinstance(layer, kinds))
        for kinds in (weighted, kept)
    )
    return model.count_params(), multiply_adds(model), *outputs


if __name__ == "__main__":
    main()
