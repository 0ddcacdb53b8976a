"""Reports a run: a progress bar, plain lines, TensorBoard, `metrics.jsonl`, a tracker, TensorFlow's profiler."""

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
from training.run.trackers import tracked


class Progress:
    """Reports a run's figures: a bar where there is a terminal, plain lines where there is none, and to its files.

    Args:
        run: Whose files to write.
        config: Its config.
        step: Steps already done.
        reports: Whether this process is the one that reports; where several workers train, one of them is.
        num_devices: Devices of all workers.
        steps_per_epoch: Steps that see every training image once.

    Raises:
        InputError: The config's tracker cannot be opened.
    """

    def __init__(
        self, run: Run, config: Config, step: int, reports: bool = True, *, num_devices: int, steps_per_epoch: int
    ) -> None:
        self._run = run
        self._config = config
        self._reports = reports
        self._num_devices = num_devices
        self._steps_per_epoch = steps_per_epoch
        self._clock = Clock(step)
        self._closing = contextlib.ExitStack()
        if reports:
            self._track = self._closing.enter_context(tracked(config, run.folder))
            self._writer = tf.summary.create_file_writer(str(run.tensorboard))
            run.rewind(step)
        # disable=None: only where there is a terminal
        self._bar = self._closing.enter_context(
            tqdm(total=config.steps, initial=step, unit=" steps", disable=None if reports else True, dynamic_ncols=True)
        )
        if step:
            self._say(f"resumed at step {step:,} of {config.steps:,}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reports:
            with contextlib.suppress(tf.errors.OpError):  # what is written is flushed already
                self._writer.close()
        self._closing.__exit__(kind, error, traceback)

    def advance(self, steps: int = 1) -> None:
        """Moves the bar on."""
        self._bar.update(steps)

    def train(self, step: int, figures: dict[str, float]) -> None:
        """Reports a training step's figures, the epoch, and the images per second since the last report."""
        speed, mean_speed = self._clock.lap(step)
        rate = speed * self._config.batch_size
        self._write("train", step, figures | {"epoch": step / self._steps_per_epoch, "images_per_second": rate})
        text = f"loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.2%}, {rate:,.0f} images/s"
        if self._num_devices > 1:
            text += f" ({rate / self._num_devices:,.0f} on each device)"
        if self._bar.disable:
            left = tqdm.format_interval((self._config.steps - step) / mean_speed)
            self._say(f"step {step:,} of {self._config.steps:,}, {self._epoch(step)}: {text}, {left} left")
        else:
            self._bar.set_postfix_str(f"{self._epoch(step)}, {text}")

    def evaluation(self, step: int, figures: dict[str, float]) -> None:
        """Reports an evaluation's figures."""
        self._write("evaluation", step, figures)
        self._say_evaluation(step, "validation" if self._config.val_split else "test", figures)

    def test(self, step: int, figures: dict[str, float]) -> None:
        """Reports the figures of the test split, where another split is evaluated while training."""
        self._write("test", step, figures)
        self._say_evaluation(step, "test", figures)

    def signals(self, step: int, model: keras.Model, images: tf.Tensor) -> None:
        """Writes, for TensorBoard, the signal and its gradient at each layer, and the rectifiers' slopes."""
        if self._reports:
            with _on_disk():
                write_signals(self._writer, measure_gains(model, images), step)
                write_slopes(self._writer, model, step)

    def _say_evaluation(self, step: int, name: str, figures: dict[str, float]) -> None:
        self._say(f"step {step:,}: {name} loss {figures['loss']:.4f}, {name} accuracy {figures['accuracy']:.2%}")

    def _epoch(self, step: int) -> str:
        return f"epoch {step / self._steps_per_epoch:.2f} of {self._config.steps / self._steps_per_epoch:.2f}"

    def _write(self, event: str, step: int, figures: dict[str, float]) -> None:
        if not self._reports:
            return
        self._run.log(event, step, figures)
        tagged = {f"{event}/{name}": value for name, value in figures.items()}
        self._track(step, tagged)
        with _on_disk(), self._writer.as_default(step):
            for tag, value in tagged.items():
                tf.summary.scalar(tag, value)
            self._writer.flush()

    def _say(self, line: str) -> None:
        if self._reports:
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
    """Measures how fast steps go, from the steps that are already done."""

    def __init__(self, step: int) -> None:
        self._start = self._last = self._first = (step, time.perf_counter())

    def lap(self, step: int) -> tuple[float, float]:
        """Steps per second since the last lap, and since the end of the first, in which TensorFlow compiles."""
        now = (step, time.perf_counter())
        speeds = [(now[0] - since[0]) / (now[1] - since[1]) for since in (self._last, self._start)]
        if self._start is self._first:
            self._start = now
        self._last = now
        return speeds[0], speeds[1]


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
    waiting = [tf.profiler.experimental.Profile(str(folder))]
    with contextlib.ExitStack() as running:

        def mark(done: int) -> None:
            if done >= last:
                running.close()
            elif done + 1 >= first and waiting:
                running.enter_context(waiting.pop())

        yield mark


def parse_steps(steps: str) -> tuple[int, int]:
    """Reads `100-110`; empty is `(0, -1)`, no step at all."""
    if not steps:
        return 0, -1
    match = re.fullmatch(r"(\d+)-(\d+)", steps)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"profile_steps is {steps!r}, but must be the first and the last step, as 100-110")
    return int(match[1]), int(match[2])
