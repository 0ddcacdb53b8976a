"""Reports a run: a progress bar, plain lines, TensorBoard, `metrics.jsonl`, TensorFlow's profiler."""

import contextlib
import errno
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import keras
import tensorflow as tf
from tqdm import tqdm

from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.tensorboard import write_signals, write_slopes
from training.config import Config
from training.errors import InputError
from training.run.folder import Run


class Progress:
    """Reports a run's figures: a bar where there is a terminal, plain lines where there is none, and to its files.

    Args:
        run: Whose files to write.
        config: Its config.
        step: Steps already done.
        reports: Whether this process is the one that reports; where several workers train, one of them is.
    """

    def __init__(self, run: Run, config: Config, step: int, reports: bool = True) -> None:
        self._run = run
        self._config = config
        self._reports = reports
        self._clock = Clock(step, config.steps)
        self._writer = tf.summary.create_file_writer(str(run.tensorboard)) if reports else None
        # disable=None: only where there is a terminal
        self._bar = tqdm(
            total=config.steps, initial=step, unit=" steps", disable=None if reports else True, dynamic_ncols=True
        )
        if reports:
            run.rewind(step)
        if step:
            self._say(f"resumed at step {step:,} of {config.steps:,}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._writer:
            with contextlib.suppress(tf.errors.OpError):  # what is written is flushed already
                self._writer.close()

    def advance(self, steps: int = 1) -> None:
        """Moves the bar on."""
        self._bar.update(steps)

    def train(self, step: int, figures: dict[str, float]) -> None:
        """Reports a training step's figures, and the images per second since the last report."""
        rate = self._clock.lap(step) * self._config.batch_size
        self._write("train", step, figures | {"images_per_second": rate})
        text = f"loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.2%}, {rate:,.0f} images/s"
        if self._bar.disable:
            left = tqdm.format_interval(self._clock.seconds_left)
            self._say(f"step {step:,} of {self._config.steps:,}: {text}, {left} left")
        else:
            self._bar.set_postfix_str(text)

    def evaluation(self, step: int, figures: dict[str, float]) -> None:
        """Reports an evaluation's figures."""
        self._write("evaluation", step, figures)
        name = "validation" if self._config.val_split else "test"
        self._say(f"step {step:,}: {name} loss {figures['loss']:.4f}, {name} accuracy {figures['accuracy']:.2%}")

    def signals(self, step: int, model: keras.Model, images: tf.Tensor) -> None:
        """Writes, for TensorBoard, the signal and its gradient at each layer, and the rectifiers' slopes."""
        if self._writer is None:
            return
        with _on_disk():
            write_signals(self._writer, measure_gains(model, images), step)
            write_slopes(self._writer, model, step)

    def _write(self, event: str, step: int, figures: dict[str, float]) -> None:
        if self._writer is None:
            return
        self._run.log(event, step, figures)
        with _on_disk(), self._writer.as_default(step):
            for name, value in figures.items():
                tf.summary.scalar(f"{event}/{name}", value)
            self._writer.flush()

    def _say(self, line: str) -> None:
        if not self._reports:
            return
        # tqdm.write keeps a bar whole; where there is none, flushed lines can be followed through a pipe
        print(line, flush=True) if self._bar.disable else tqdm.write(line)


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    """Raises an OSError where TensorFlow raises an error of its own because a file cannot be written."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message.partition("\n")[0].rpartition("; ")[2]) from None


class Clock:
    """How fast steps go, and how long those that are left will take.

    Args:
        step: Steps already done.
        steps: Steps in all.
    """

    def __init__(self, step: int, steps: int) -> None:
        self._steps = steps
        self._laps = [(step, time.perf_counter())]

    def lap(self, step: int) -> float:
        """Takes the time, and returns the steps per second since it was taken last."""
        # The first lap is long, for TensorFlow traces and compiles in it: once there are others it counts no more.
        self._laps = [*self._laps[:2], *self._laps[2:][-1:], (step, time.perf_counter())]
        return _speed(self._laps[-2], self._laps[-1])

    @property
    def seconds_left(self) -> float:
        """By the speed of all laps but the first; that includes what evaluations take."""
        start = self._laps[1] if len(self._laps) > 2 else self._laps[0]
        return (self._steps - self._laps[-1][0]) / _speed(start, self._laps[-1])


def _speed(start: tuple[int, float], end: tuple[int, float]) -> float:
    return (end[0] - start[0]) / (end[1] - start[1])


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
