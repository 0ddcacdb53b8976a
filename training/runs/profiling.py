"""TensorFlow's profiler over some steps of a run, for TensorBoard's Profile tab."""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator

import tensorflow as tf

from training.errors import InputError


@contextlib.contextmanager
def profiled_steps(steps: str, folder: pathlib.Path) -> Iterator[Callable[[int], None]]:
    """Profiles some steps of those that run within the block.

    Args:
        steps: `100-110`, both included; empty for none.
        folder: Where TensorBoard looks.

    Yields:
        A function to be called with the number of steps that are done, before the first step and after each.

    Raises:
        InputError: Something else than two numbers, the second not below the first.
    """
    first, last = parse_steps(steps)
    running = False

    def mark(done: int) -> None:
        nonlocal running
        if not running and first <= done + 1 <= last:
            tf.profiler.experimental.start(str(folder))
            running = True
        elif running and done >= last:
            tf.profiler.experimental.stop()
            running = False

    try:
        yield mark
    finally:
        if running:
            tf.profiler.experimental.stop()


def parse_steps(steps: str) -> tuple[int, int]:
    """Reads `100-110`; empty is `(0, -1)`, no step at all."""
    if not steps:
        return 0, -1
    match = re.fullmatch(r"(\d+)-(\d+)", steps)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"profile_steps is {steps!r}, but must be the first and the last step, as 100-110")
    return int(match[1]), int(match[2])
