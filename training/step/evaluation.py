"""Evaluates a network on the whole validation split."""

import contextlib
import itertools
from collections.abc import Callable, Iterable

from training.batch import Batch
from training.experiment import Experiment
from training.step.steps import Step


def make_evaluation(experiment: Experiment) -> Callable[[], dict[str, float]]:
    """Makes the function that evaluates the network as it is, and tells a plateau the validation error.

    Returns:
        A function to the validation split's mean `loss` and `accuracy`, with the averaged weights where there are such.
    """
    step, batches = experiment.evaluation_step(), iter(experiment.validation_batches())
    average, plateau = experiment.average, experiment.optimizer.plateau

    def evaluation() -> dict[str, float]:
        with average.applied(experiment.model) if average else contextlib.nullcontext():
            figures = evaluate(step, itertools.islice(batches, experiment.num_validation_batches))
        if plateau:
            plateau.observe(1 - figures["accuracy"])
        return figures

    return evaluation


def evaluate(evaluation_step: Step, batches: Iterable[Batch]) -> dict[str, float]:
    """Averages an evaluation step's means over all batches, each with the number of images it stands for."""
    results = [{name: float(value) for name, value in evaluation_step(batch).items()} for batch in batches]
    total = sum(result["count"] for result in results)
    return {name: sum(r[name] * r["count"] for r in results) / total for name in ("loss", "accuracy")}
