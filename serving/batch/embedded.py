"""The engine of one machine: parts one after the other, in this process."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from serving.batch.inputs import Part
from serving.batch.job import Job
from serving.batch.part_writer import Counts, PartWriter
from serving.batch.progress import Interruptions
from serving.batch.run import Write


@contextmanager
def opened(job: Job, given: argparse.Namespace, interruptions: Interruptions) -> Iterator[Write]:
    """Loads the model, and gives the function that writes parts. A signal ends it between two batches."""
    writer = PartWriter(job)
    interruptions.wait_for_check()

    def write(parts: Sequence[Part], note: Callable[[Counts], None]) -> None:
        for part in parts:
            writer.write(part, note)

    yield write
