"""The options of batching: BatchingParameters of session_bundle_config.proto, checked."""

import os
from dataclasses import dataclass
from itertools import pairwise

from google.protobuf.message import Message

from serving.errors import invalid_argument


@dataclass(frozen=True, kw_only=True)
class BatchingOptions:
    """Options with TensorFlow Serving's defaults. Sizes are in rows.

    Raises ServingError if the numbers do not fit one another.
    """

    max_batch_size: int = 1000
    """Rows of a run, and of a request; of a request only, if large ones are split."""
    batch_timeout_micros: int = 0
    """Time that a batch that is not full waits for more requests; it waits for a free thread in any case."""
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    """Batches are filled up to the next of these sizes."""
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0
    """Rows of a run if large requests are split; 0 stands for `max_batch_size`."""

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.batch_timeout_micros < 0:
            raise invalid_argument(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        if self.enable_large_batch_splitting and self.max_batch_size < self.largest_run:
            raise invalid_argument(
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
                f"max_execution_batch_size; were {self.max_batch_size} and {self.largest_run}"
            )
        if self.allowed_batch_sizes:
            _check_allowed_sizes(self)

    @property
    def largest_run(self) -> int:
        """The most rows of one run."""
        splits = self.enable_large_batch_splitting and self.max_execution_batch_size
        return self.max_execution_batch_size if splits else self.max_batch_size

    def padded_size(self, size: int) -> int:
        """The rows of a run for requests of `size` rows, with the padding."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def from_message(parameters: Message) -> BatchingOptions:
    """The options in a BatchingParameters message; fields that it leaves out have their defaults."""
    given = {field.name: getattr(value, "value", value) for field, value in parameters.ListFields()}
    return BatchingOptions(**given | {"allowed_batch_sizes": tuple(given.get("allowed_batch_sizes", ()))})


def _check_positive(options: BatchingOptions) -> None:
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
        value = getattr(options, name)
        if value < 1:
            raise invalid_argument(f"{name} must be positive; was {value}")
    if options.max_execution_batch_size < 0:
        raise invalid_argument(f"max_execution_batch_size must be positive; was {options.max_execution_batch_size}")


def _check_allowed_sizes(options: BatchingOptions) -> None:
    sizes = options.allowed_batch_sizes
    if sizes[0] < 1 or any(size >= following for size, following in pairwise(sizes)):
        raise invalid_argument("allowed_batch_sizes entries must be monotonically increasing")
    if sizes[-1] == options.largest_run:
        return
    if options.enable_large_batch_splitting:
        raise invalid_argument(
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; "
            f"last entry was {sizes[-1]}; expected {options.largest_run}"
        )
    raise invalid_argument(
        "Last entry in allowed_batch_sizes must match max_batch_size; "
        f"last entry was {sizes[-1]}; expected {options.largest_run}"
    )
