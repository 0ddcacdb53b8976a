"""Projects from counted operations and bytes what the ImageNet configs would take on GPUs; measures nothing.

A step of a config takes three times:

- arithmetic: three times the multiply-adds of a forward pass, two operations each, at a rate that a GPU is assumed to
  hold in the config's precision;
- memory: the passes over weights and activations that `_Passes` lists, at the bandwidth that a GPU is assumed to hold;
- the sum of the gradients: 2 (n - 1) / n times their float32 bytes over each of n GPUs' links.

The hours are those where nothing overlaps, and those where the sums hide behind the backward pass as far as it lasts:
gradients are summed in packs while others are computed, but not where XLA compiles the backward pass as one.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from training.config import Config, load_config
from training.reproduce.figures import markdown

IMAGES = 1_281_167  # of ImageNet 2012's training split
CONFIGS = ("imagenet_14layer", "imagenet_a", "imagenet_b", "imagenet_c", "imagenet_a_fast", "imagenet_c_fast")
COPIES = 4  # of the weights in memory: themselves, velocities, gradients, their sums
JPEG = 110e3  # bytes of an image on average
GPUS = (8, 1)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The counts of a network, the last three per image.

    Attributes:
        parameters: Weights and slopes.
        multiply_adds: Of a forward pass.
        weighted: Numbers that convolutions and dense layers put out.
        kept: Numbers that the backward pass reads: those, and the outputs of rectifiers and poolings.
    """

    parameters: int
    multiply_adds: int
    weighted: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """GPUs, and the rates that each is assumed to hold.

    Attributes:
        gpus: Their number.
        flops: Operations per second in float32: a third of an A100's TF32 peak is 52e12.
        bfloat16_flops: Those in bfloat16: an A100's peak is 312e12.
        memory: Bytes per second of its memory: an A100's peak is 1,555e9.
        link: Bytes per second that it exchanges in an all-reduce.
    """

    gpus: int
    flops: float = 60e12
    bfloat16_flops: float = 120e12
    memory: float = 1_500e9
    link: float = 100e9


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


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The cost of a training.

    Attributes:
        arithmetic: Seconds of a step, like the next three.
        memory: For passes over memory.
        sums: For the sum of the gradients.
        hidden: Of the sums, behind the backward pass.
        steps: Of the whole training.
        rate: Images per second, the sums hidden.
        weight_bytes: Of the weights' copies on each GPU.
        activation_bytes: Of the activations that each GPU keeps.
    """

    arithmetic: float
    memory: float
    sums: float
    hidden: float
    steps: float
    rate: float
    weight_bytes: float
    activation_bytes: float

    @property
    def hours(self) -> float:
        """The time where nothing overlaps."""
        return self.steps * (self.arithmetic + self.memory + self.sums) / 3_600

    @property
    def hidden_hours(self) -> float:
        """The time where the sums hide."""
        return self.hours - self.steps * self.hidden / 3_600


def project(counts: Counts, config: Config, machine: Machine) -> Projection:
    """Projects a config's training on a machine."""
    share = config.batch_size / machine.gpus
    half = config.precision != "float32"
    size, flops = (2, machine.bfloat16_flops) if half else (4, machine.flops)
    passes = _FUSED if config.xla else _SEPARATE
    arithmetic = 6 * counts.multiply_adds * share / flops
    activations = size * passes.activations * counts.weighted * share / machine.memory
    memory = 4 * passes.weights * counts.parameters / machine.memory + activations
    sums = 2 * (machine.gpus - 1) / machine.gpus * 4 * counts.parameters / machine.link
    hidden = 0.0 if config.xla else min(sums, 2 / 3 * (arithmetic + activations))
    return Projection(
        arithmetic=arithmetic,
        memory=memory,
        sums=sums,
        hidden=hidden,
        steps=IMAGES * config.epochs / config.batch_size,
        rate=config.batch_size / (arithmetic + memory + sums - hidden),
        weight_bytes=4 * COPIES * counts.parameters,
        activation_bytes=size * counts.kept * share,
    )


def projection_tables(counts: Mapping[str, Counts]) -> dict[str, str]:
    """The tables of time and of needs, for the configs whose network is counted."""
    cases = [case for case in _configs() if case[1].network in counts]
    header = ("config", "GPUs", "ms of arithmetic", "of memory", "of sums", "hours", "hours, sums hidden", "GPU hours")
    times = [
        _time(name, gpus, project(counts[config.network], config, Machine(gpus=gpus)))
        for gpus, (name, config) in itertools.product(GPUS, cases)
    ]
    return {"projected time": markdown(header, times), "projected needs": _needs(counts, cases)}


def _configs() -> Iterator[tuple[str, Config]]:
    for name in CONFIGS:
        config = load_config(name)
        yield name, config
        if name.endswith("fast"):
            yield f"{name}, XLA", replace(config, xla=True)


def _time(name: str, gpus: int, projected: Projection) -> list[Any]:
    parts = (projected.arithmetic, projected.memory, projected.sums)
    hours = (projected.hours, projected.hidden_hours)
    times = [*(f"{1_000 * each:.1f}" for each in parts), *(f"{each:.1f}" for each in hours)]
    return [name, gpus, *times, f"{gpus * projected.hidden_hours:.0f}"]


def _needs(counts: Mapping[str, Counts], cases: list[tuple[str, Config]]) -> str:
    header = ("config", "images/s to decode", "GB/s of JPEG", "GiB of weights", "GiB of activations per GPU")
    rows = []
    for name, config in cases:
        counted = counts[config.network]
        projected = project(counted, config, Machine(gpus=GPUS[0]))
        sizes = (projected.weight_bytes, projected.activation_bytes, 8 * counted.parameters)
        gibibytes = (f"{each / 2**30:.1f}" for each in sizes)
        rows.append([name, f"{projected.rate:,.0f}", f"{projected.rate * JPEG / 1e9:.2f}", *gibibytes])
    return markdown((*header, "GiB per checkpoint"), rows)
