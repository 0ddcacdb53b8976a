"""The progress of a run: a bar, the share of unreadable images, and signals that end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn, Self

from tqdm import tqdm

from serving.batch.inputs import Part
from serving.batch.part_writer import Counts
from serving.errors import Code, ServingError


class Interrupted(BaseException):
    """A signal has asked the run to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruptions:
    """SIGINT and SIGTERM: they end the process at once, and during a run between two batches."""

    def __init__(self) -> None:
        self._number = 0
        self._waits = self._raises = False
        self.listen()

    def listen(self) -> None:
        """Handles the signals from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def wait_for_check(self) -> None:
        """Makes the first signal wait for `check`."""
        self._waits = True

    def raise_at_once(self) -> None:
        """Makes the first signal raise Interrupted wherever the main thread is."""
        self._waits = self._raises = True

    def check(self) -> None:
        """Raises Interrupted if there has been a signal."""
        if self._number:
            raise Interrupted(self._number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._number or not self._waits:
            os._exit(128 + number)  # imports and loads cannot be unwound quietly, and have nothing to clean up
        self._number = number
        if self._raises:
            self.check()


class Progress:
    """Counts rows; `with progress:` shows a bar."""

    def __init__(self, parts: Sequence[Part], max_unreadable: float, interruptions: Interruptions) -> None:
        self._max_unreadable = max_unreadable
        self._interruptions = interruptions
        self._total = sum(part.num_rows for part in parts)
        self._bar: tqdm[NoReturn] | None = None
        self.counts = Counts(0, 0)

    def __enter__(self) -> Self:
        self._bar = tqdm(total=self._total, initial=self.counts.rows, unit=" images", disable=None)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, counts: Counts) -> None:
        """Counts rows that an earlier run has written."""
        self.counts = self.counts.plus(counts)

    def note(self, counts: Counts) -> None:
        """Counts rows. Raises ServingError if too many are unreadable, and Interrupted after a signal."""
        self._interruptions.check()
        self.add(counts)
        if self._bar is not None:
            self._bar.update(counts.rows)
        unreadable = self.counts.unreadable
        if counts.unreadable and unreadable > self._max_unreadable * self._total:
            raise ServingError(
                Code.DATA_LOSS,
                f"{unreadable:,} of {self._total:,} images cannot be read, the last {counts.last}, and "
                f"--max_unreadable is {self._max_unreadable}: allow more, or mend them and name another --output",
            )
