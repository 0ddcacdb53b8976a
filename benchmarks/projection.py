"""What the paper's networks would take on ImageNet: projected from counted operations, measured nowhere.

    python -m benchmarks.projection [--gpus 8] [--teraflops 60] [--epochs 80]

Time counts three times the multiply-adds of a forward pass for forward and backward, two operations each, at a rate
that each GPU is assumed to hold; it leaves out reading images, summing gradients and evaluations. Memory counts
float32 weights, gradients and velocities, and the maps that the backward pass reads: what each convolution, dense layer
and pooling puts out, once.
"""

import argparse
import math
from collections.abc import Iterator

import keras

from keras_prelu.multiply_adds import multiply_adds
from keras_prelu.paper_networks import paper_network

IMAGES = 1_281_167  # of ImageNet 2012's training split
BATCH = 128
NETWORKS = ("14-layer", "A", "B", "C")
KEPT = (keras.layers.Conv2D, keras.layers.Dense, keras.layers.MaxPooling2D)


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projection", description=__doc__)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument(
        "--teraflops", type=float, default=60, help="that a GPU holds: a third of an A100's TF32 peak is 52"
    )
    parser.add_argument("--epochs", type=int, default=80)
    arguments = parser.parse_args()
    print(f"Projected: {arguments.gpus} GPUs at {arguments.teraflops:g} Tflop/s each, {arguments.epochs} epochs.\n")
    print("| | parameters | multiply-adds | hours | images/s | GiB of weights | GiB of maps a GPU | GiB a checkpoint |")
    print("|---|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        print(line(name, arguments.gpus, arguments.teraflops * 1e12, arguments.epochs))


def line(name: str, gpus: int, flops: float, epochs: int) -> str:
    """A network's row."""
    model = paper_network(name, rectifier="prelu")
    parameters, adds = model.count_params(), multiply_adds(model)
    rate = gpus * flops / (6 * adds)
    hours = IMAGES * epochs / rate / 3_600
    maps = sum(math.prod(shape[1:]) for shape in _kept(model)) * 4 * BATCH / gpus
    weights = 3 * 4 * parameters
    figures = f"{parameters:,} | {adds:.3g} | {hours:.1f} | {rate:,.0f} | {weights / 2**30:.1f} | {maps / 2**30:.1f}"
    return f"| {name} | {figures} | {2 * 4 * parameters / 2**30:.1f} |"


def _kept(model: keras.Model) -> Iterator[tuple[int, ...]]:
    for layer in model.layers:
        if isinstance(layer, KEPT):
            yield layer.output.shape


if __name__ == "__main__":
    main()
