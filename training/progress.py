"""What a run shows and keeps of itself: a progress bar, plain lines, TensorBoard, `metrics.jsonl`."""

import time
from types import TracebackType

import tensorflow as tf
from tqdm import tqdm

from training.config import Config
from training.run import Run


class Progress:
    """Reports a run's figures: a bar where there is a terminal, plain lines where there is none, and to its files.

    Args:
        run: Whose files to write.
        config: Its config.
        step: Steps already done.
    """

    def __init__(self, run: Run, config: Config, step: int) -> None:
        self._run = run
        self._config = config
        self._logged = step, time.perf_counter()
        self._writer = tf.summary.create_file_writer(str(run.tensorboard))
        self._bar = tqdm(total=config.steps, initial=step, unit=" steps", disable=None, dynamic_ncols=True)
        run.rewind(step)
        if step:
            self._say(f"resumed at step {step:,} of {config.steps:,}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        self._writer.close()

    def advance(self) -> None:
        """Moves the bar by one step."""
        self._bar.update()

    def train(self, step: int, figures: dict[str, float]) -> None:
        """Reports a training step's figures, and the images per second since the last report."""
        logged_step, logged_time = self._logged
        self._logged = step, time.perf_counter()
        rate = (step - logged_step) * self._config.batch_size / (self._logged[1] - logged_time)
        self._write("train", step, figures | {"images_per_second": rate})
        text = f"loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.2%}, {rate:,.0f} images/s"
        if self._bar.disable:
            self._say(f"step {step:,} of {self._config.steps:,}: {text}")
        else:
            self._bar.set_postfix_str(text)

    def evaluation(self, step: int, figures: dict[str, float]) -> None:
        """Reports an evaluation's figures."""
        self._write("evaluation", step, figures)
        self._say(f"step {step:,}: test loss {figures['loss']:.4f}, test accuracy {figures['accuracy']:.2%}")

    def _write(self, event: str, step: int, figures: dict[str, float]) -> None:
        self._run.log(event, step, figures)
        with self._writer.as_default(step):
            for name, value in figures.items():
                tf.summary.scalar(f"{event}/{name}", value)
        self._writer.flush()

    def _say(self, line: str) -> None:
        # tqdm.write keeps a bar whole; where there is none, flushed lines can be followed through a pipe
        print(line, flush=True) if self._bar.disable else tqdm.write(line)
