"""Writes parts: reads their rows, runs them, and keeps the session busy meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from serving.batch import reader
from serving.batch.folder import written
from serving.batch.inputs import Part
from serving.batch.job import Job
from serving.batch.predictor import Predictor
from serving.errors import ServingError

_RUNS = 2  # at once: while one waits for its last images to be decoded, the other computes
_READ_AHEAD = 2  # batches beyond those that run
_ROW_GROUP = 32 * 2**20  # bytes of the rows that are kept until they are written
_UNREADABLE = b"unreadable"  # in the footer of a part


class Counts(NamedTuple):
    """Rows, those among them that have an error, and the last of these errors."""

    rows: int
    unreadable: int
    last: str = ""

    def plus(self, other: Counts) -> Counts:
        """Returns the sums, and the later error."""
        return Counts(self.rows + other.rows, self.unreadable + other.unreadable, other.last or self.last)


class PartWriter:
    """Writes one part per call. Engines share it: Ray Data's `map_batches` takes it unchanged."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._predictor = Predictor(job)

    def __call__(self, columns: Mapping[str, Sequence[str]]) -> dict[str, list[int] | list[str]]:
        """Writes the parts in the column `part`, as JSON. Returns columns of counts, and of what made a part fail."""
        answers = [self._try(Part.from_json(str(text))) for text in columns["part"]]
        return {name: [answer[name] for answer in answers] for name in answers[0]}

    def close(self) -> None:
        """Frees the model's memory."""
        self._predictor.close()

    def write(self, part: Part, note: Callable[[Counts], None]) -> Counts:
        """Writes a part whole or not at all. `note` gets the counts of each batch, and may raise to end it."""
        total, waiting = Counts(0, 0), list[pa.Table]()
        with (
            written(self._job.output / part.name) as file,
            pq.ParquetWriter(file, self._predictor.schema, compression="zstd") as writer,
            closing(self._tables(part)) as tables,
        ):
            for table in tables:
                counts = _count(table)
                total = total.plus(counts)
                note(counts)
                waiting.append(table)
                if sum(each.nbytes for each in waiting) >= _ROW_GROUP or total.rows == part.num_rows:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            writer.add_key_value_metadata({_UNREADABLE: str(total.unreadable)})
        return total

    def _try(self, part: Part) -> dict[str, Any]:
        try:
            return {**self.write(part, lambda counts: None)._asdict(), "failure": ""}
        except (ServingError, OSError) as error:  # Ray would raise an error of its own, with all of the traceback
            return {
                **Counts(0, 0)._asdict(),
                "failure": error.message if isinstance(error, ServingError) else str(error),
            }

    def _tables(self, part: Part) -> Generator[pa.Table]:
        """The tables of a part's batches in order, of which several are read and run at once."""
        running: deque[Future[pa.Table]] = deque()
        batches = reader.read(part, self._job)
        with ThreadPoolExecutor(_RUNS) as threads:
            try:
                for batch in batches:
                    running.append(threads.submit(self._predictor, batch))
                    if len(running) > _RUNS + _READ_AHEAD:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                threads.shutdown(cancel_futures=True)


def count_part(path: Path, num_rows: int) -> Counts | None:
    """The counts of a part that has been written; None if it has not been, or has another number of rows."""
    try:
        metadata = pq.read_metadata(path)
        counts = Counts(metadata.num_rows, int(metadata.metadata[_UNREADABLE]))
    except (OSError, pa.ArrowException, KeyError, TypeError):
        return None
    return counts if counts.rows == num_rows else None


def _count(table: pa.Table) -> Counts:
    errors = [(name, error) for name, error in zip(table["id"], table["error"], strict=True) if error.is_valid]
    last = f"{errors[-1][0]} ({errors[-1][1]})" if errors else ""
    return Counts(len(table), len(errors), last)
