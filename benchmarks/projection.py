"""Projects from counted operations and bytes what the paper's networks would take on ImageNet; measures nothing.

    python -m benchmarks.projection [--gpus 8] [--teraflops 60] [--memory 1500] [--link 100] [--epochs 80]

A step's time is the sum of three times, none of which hides behind another:

- arithmetic: three times the multiply-adds of a forward pass, two operations each, at a rate that a GPU is assumed to
  hold;
- memory: ten passes over all weights for the L2, the clipping and the update, and eight over the maps for the
  rectifiers, forward and backward, at a bandwidth that a GPU is assumed to hold;
- the sum of the gradients: 2 (n - 1) / n times their bytes over each of n GPUs' links.

Reading and decoding images and evaluations come on top. Memory counts float32 weights, gradients and velocities, the
two copies of the gradients that are summed in one piece, and the maps that the backward pass reads: the output of each
convolution, dense layer and pooling, once.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from keras_prelu.networks.multiply_adds import multiply_adds
from keras_prelu.networks.paper import paper_network

IMAGES = 1_281_167  # of ImageNet 2012's training split
BATCH = 128
NETWORKS = ("14-layer", "A", "B", "C")
WEIGHT_PASSES, MAP_PASSES = 10, 8
WEIGHT_COPIES = 5
KEPT = (keras.layers.Conv2D, keras.layers.Dense, keras.layers.MaxPooling2D)


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projection", description=__doc__)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument(
        "--teraflops", type=float, default=60, help="that a GPU holds: a third of an A100's TF32 peak is 52"
    )
    parser.add_argument("--memory", type=float, default=1500, help="GB/s of a GPU's memory: an A100's peak is 1555")
    parser.add_argument("--link", type=float, default=100, help="GB/s that a GPU exchanges in an all-reduce")
    parser.add_argument("--epochs", type=int, default=80)
    arguments = parser.parse_args()
    machine = Machine(arguments.gpus, arguments.teraflops * 1e12, arguments.memory * 1e9, arguments.link * 1e9)
    print(
        f"Projected: {arguments.gpus} GPUs at {arguments.teraflops:g} Tflop/s, {arguments.memory:g} GB/s of memory and "
        f"{arguments.link:g} GB/s between them each, {arguments.epochs} epochs.\n"
    )
    print(
        "| | parameters | multiply-adds per image | ms of arithmetic | of memory | of sums | hours "
        "| images/s to decode | GiB of weights | GiB of maps per GPU | GiB per checkpoint |"
    )
    print("|" + "---|" * 11)
    for name in NETWORKS:
        print(line(name, machine, arguments.epochs))


@dataclass(frozen=True)
class Machine:
    """GPUs, and what each is assumed to hold: operations per second, bytes per second of its memory and of its link."""

    gpus: int
    flops: float
    memory: float
    link: float


def line(name: str, machine: Machine, epochs: int) -> str:
    """A network's row."""
    model = paper_network(name, rectifier="prelu")
    parameters, adds = model.count_params(), multiply_adds(model)
    maps = sum(math.prod(shape[1:]) for shape in _kept(model)) * 4 * BATCH / machine.gpus
    weights = 4 * parameters
    seconds = (
        6 * adds * BATCH / machine.gpus / machine.flops,
        (WEIGHT_PASSES * weights + MAP_PASSES * maps) / machine.memory,
        2 * (machine.gpus - 1) / machine.gpus * weights / machine.link,
    )
    rate = BATCH / sum(seconds)
    hours = IMAGES * epochs / rate / 3_600
    times = " | ".join(f"{1_000 * each:.1f}" for each in seconds)
    sizes = " | ".join(f"{each / 2**30:.1f}" for each in (WEIGHT_COPIES * weights, maps, 2 * weights))
    return f"| {name} | {parameters:,} | {adds:.3g} | {times} | {hours:.1f} | {rate:,.0f} | {sizes} |"


def _kept(model: keras.Model) -> Iterator[tuple[int, ...]]:
    for layer in model.layers:
        if isinstance(layer, KEPT):
            yield layer.output.shape


if __name__ == "__main__":
    main()
