"""A trial: one training or measurement of a study."""

import dataclasses
from typing import Any

Record = dict[str, Any]
RECORD = "record.json"  # in a trial's folder


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training or measurement, of one study or of several that read it in different ways.

    Attributes:
        name: `<file>/<folder>`: its record is a line of `<file>.jsonl`.
        settings: All that decides its result, in what JSON can hold.
    """

    name: str
    settings: dict[str, Any]

    @property
    def file(self) -> str:
        """The file that holds its record."""
        return f"{self.name.partition('/')[0]}.jsonl"

    def is_that_of(self, record: Record) -> bool:
        """Whether a record is of this trial with these settings."""
        return bool(record["trial"] == self.name and record["settings"] == self.settings)
