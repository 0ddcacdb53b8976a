"""Kernels scaled while their layers run, until the layers' outputs have the size that they are to have."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from keras_prelu.keras_internals import assign_uncast


@dataclass(eq=False)
class Scaled:
    """A kernel on its way to its target.

    Attributes:
        layer: The layer that holds it.
        variable: The kernel.
        path: The path of the layer in the model.
        target: The second moment that the layer's output is to have.
        reason: Why the kernel is not scaled; empty where it is.
        turn: The number of its first run, in the order of those of all kernels; infinite if it did not run.
        found: The second moment at its first run.
        factor: The factor on the kernel so far.
        runs: Size and second moment of each of its outputs in the latest pass through the model.
        shared: Whether it ran more than once in a pass.
        original: The kernel as it was.
    """

    layer: keras.Layer
    variable: keras.Variable
    path: str
    target: float
    reason: str = ""
    turn: float = math.inf
    found: float = math.nan
    factor: float = 1.0
    runs: list[tuple[int, float]] = field(default_factory=list)
    shared: bool = False

    def __post_init__(self) -> None:
        self.original = ops.convert_to_numpy(self.variable)

    @property
    def reached(self) -> float:
        """The second moment over all the outputs of a pass."""
        size = sum(size for size, _ in self.runs)
        return sum(size * square for size, square in self.runs) / size if size else math.nan

    def scale(self, factor: float) -> None:
        """Multiplies the kernel."""
        self.factor *= factor
        assign_uncast(self.variable, self.original * self.factor)

    def restore(self, reason: str) -> None:
        """Puts the kernel back."""
        self.factor, self.reason = 1.0, reason
        assign_uncast(self.variable, self.original)


class Calibrator:
    """Measures the outputs of kernels, and scales the kernels while their layers run."""

    def __init__(self, tolerance: float, max_iterations: int) -> None:
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.turns = itertools.count()
        self.latest: tuple[int, float] | None = None

    def run(self, model: keras.Model, batch: Any, kernels: Sequence[Scaled]) -> None:
        """Runs the model; again where a kernel that ran several times in one pass has moved after it."""
        for iteration in range(self.max_iterations):
            for kernel in kernels:
                kernel.runs.clear()
            model(batch, training=False)
            off = [kernel for kernel in kernels if kernel.shared and self._is_off(kernel)]
            for kernel in off:
                if iteration + 1 < self.max_iterations:
                    kernel.scale(math.sqrt(kernel.target / kernel.reached))
                else:
                    kernel.reason = f"its mean over all calls stays at {kernel.reached:.3g}"
            if not off:
                break

    def see_preactivation(self, layer: keras.Layer, values: Any) -> Any:
        """Measures the output of a layer before its activation."""
        single = ops.cast(values, "float32")
        largest = ops.convert_to_numpy(ops.max(ops.abs(single))).item()
        square = largest
        if 0 < largest < math.inf:  # squares of very small or large numbers leave the range of single precision
            square = largest**2 * ops.convert_to_numpy(ops.mean(ops.square(single / largest))).item()
        self.latest = math.prod(values.shape), square
        return values

    def calibrated(self, kernel: Scaled) -> Callable[..., Any]:
        """The call of a watched layer, in which its kernel is scaled."""
        call = kernel.layer.call

        def run(*args: Any, **kwargs: Any) -> Any:
            self.latest = None
            outputs = call(*args, **kwargs)
            kernel.runs.append(self.latest or (1, math.nan))
            return outputs

        def calibrated_call(*args: Any, **kwargs: Any) -> Any:
            kernel.shared = kernel.shared or bool(kernel.runs)
            outputs = run(*args, **kwargs)
            if math.isinf(kernel.turn):
                kernel.turn, kernel.found = next(self.turns), kernel.reached
            for iteration in range(0 if kernel.shared else self.max_iterations + 1):
                if not self._is_off(kernel):
                    break
                if iteration < self.max_iterations:
                    kernel.scale(math.sqrt(kernel.target / kernel.reached))
                else:
                    kernel.restore(f"scaled, its output stays at {kernel.reached:.3g}")
                kernel.runs.clear()
                outputs = run(*args, **kwargs)
            return outputs

        return calibrated_call

    def _is_off(self, kernel: Scaled) -> bool:
        """Whether a kernel is to be scaled; notes the reason where it can't be."""
        reached = kernel.reached
        within = abs(reached / kernel.target - 1) <= self.tolerance
        if not kernel.reason and not 0 < reached < math.inf:
            kernel.reason = f"its output is {'zero' if reached == 0 else 'not finite'}"
        return not kernel.reason and not within
