"""A callback that measures signals while `fit` trains."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import keras

from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.report import SignalReport, Thresholds

logger = logging.getLogger(__name__)


class SignalMonitor(keras.callbacks.Callback):
    """Measures signal and gradient at every layer on the same batch at intervals while a model trains.

    It measures before the first step and then every `every` epochs or batches. The logger `keras_prelu.signals.monitor`
    warns of each layer with a bad verdict.

    Args:
        batch: The input on which it measures.
        targets: As in `measure_gains`.
        loss: As in `measure_gains`; None for random gradients, with which no layer is called stalled.
        every: The number of epochs or batches between two measurements.
        unit: `"epoch"` or `"batch"`.
        log_dir: Folder for TensorBoard's scalars and histograms of slopes; None writes none. Needs TensorFlow and
            TensorBoard.
        weight_decay: As in `measure_gains`.
        thresholds: As in `measure_gains`.

    Attributes:
        reports: The reports by the number of batches trained before each; 0 is the initial state.

    Raises:
        ValueError: Another unit, or a number of epochs or batches below 1.

    Examples:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="logits")])
        >>> model.compile("sgd", "mse")
        >>> images, targets = np.ones((6, 4), "float32"), np.ones((6, 2), "float32")
        >>> monitor = SignalMonitor(images[:2], targets[:2], loss="mse")
        >>> history = model.fit(images, targets, batch_size=2, epochs=2, callbacks=[monitor], verbose=0)
        >>> list(monitor.reports)
        [0, 3, 6]
    """

    def __init__(
        self,
        batch: Any,
        targets: Any = None,
        *,
        loss: str | Callable[[Any, Any], Any] | None = None,
        every: int = 1,
        unit: str = "epoch",
        log_dir: str | None = None,
        weight_decay: float = 5e-4,
        thresholds: Thresholds | None = None,
    ) -> None:
        super().__init__()
        if unit not in ("epoch", "batch"):
            raise ValueError(f'unit is {unit!r}, but must be "epoch" or "batch".')
        if every < 1:
            raise ValueError(f"every is {every}, but must be at least 1.")
        self.reports: dict[int, SignalReport] = {}
        self._measure_gains = functools.partial(
            measure_gains,
            batch=batch,
            targets=targets,
            loss=loss,
            weight_decay=weight_decay,
            thresholds=thresholds,
        )
        self._every = every
        self._unit = unit
        self._log_dir = log_dir
        self._writer: Any = None
        self._batches = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Measures the initial state."""
        if self._log_dir is not None:
            import tensorflow as tf  # other backends do without it as long as nothing is written

            self._writer = tf.summary.create_file_writer(str(self._log_dir))
        self._batches = 0
        self.reports.clear()
        self._measure()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures when enough batches have passed."""
        self._batches += 1
        if self._unit == "batch" and self._batches % self._every == 0:
            self._measure()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures when enough epochs have passed."""
        if self._unit == "epoch" and (epoch + 1) % self._every == 0:
            self._measure()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _measure(self) -> None:
        report = self._measure_gains(self.model)
        self.reports[self._batches] = report
        for row in report.suspects:
            logger.warning("after %d batches, %s: %s", self._batches, row.name, ", ".join(row.verdicts))
        if self._writer is not None:
            from keras_prelu.signals.tensorboard import write_signals, write_slopes

            write_signals(self._writer, report, self._batches)
            write_slopes(self._writer, self.model, self._batches)
