"""The exceptions of the trainer."""

import importlib.util
from collections.abc import Iterable

"""How a run ends that does not end well."""


class InputError(Exception):
    """Something that was given cannot work; the message, one line, says what was given and what would do."""


class TrainingError(Exception):
    """A run that cannot continue, although its input looked right."""


class NotFiniteError(TrainingError):
    """The loss or the weights are infinite or not numbers.

    Args:
        step: The step by which they were found so.
        message: What is known of it, where more is known.
    """

    def __init__(self, step: int, message: str = "") -> None:
        super().__init__(message or f"the loss or the weights are not finite at step {step}")
        self.step = step


LOST_WORKER_STATUS = 3  # of a process that ends because another worker did


class LostWorkerError(TrainingError):
    """Another worker has ended, so this one cannot continue; the message names it."""


class StoppedError(Exception):
    """A run was asked to stop and has saved its state; the message, one line, says how to resume."""


def check_packages(task: str, packages: Iterable[str], extra: str) -> None:
    """Raises InputError, with how to install it, where a task needs a package that is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            brings_it = f"in a clone of keras_prelu, pip install -e '.[{extra}]' brings it"
            raise InputError(f"{task} needs {package}, which is not installed; {brings_it}")
