"""What batching may be told: BatchingParameters of session_bundle_config.proto, checked."""

import os
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from serving.errors import invalid_argument


@dataclass(frozen=True, kw_only=True)
class BatchingOptions:
    """How requests are gathered; the defaults are TensorFlow Serving's. Sizes are in rows.

    Raises ServingError where the numbers do not fit one another.
    """

    max_batch_size: int = 1000
    """Rows of a run, and of a request; of a request only, where large ones are split."""
    batch_timeout_micros: int = 0
    """How long a batch that is not full waits for more; it waits for a free thread in any case."""
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    """Batches are filled up to the next of these sizes."""
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0
    """Rows of a run where large requests are split; 0 stands for `max_batch_size`."""

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
        """The rows that one run may have."""
        splits = self.enable_large_batch_splitting and self.max_execution_batch_size
        return self.max_execution_batch_size if splits else self.max_batch_size

    def padded_size(self, size: int) -> int:
        """The rows of a run in which `size` rows are asked for."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def from_message(parameters: Any) -> BatchingOptions:
    """The options in a BatchingParameters message; what it leaves out has its default."""
    wrapped = {
        field.name: getattr(parameters, field.name).value
        for field, _ in parameters.ListFields()
        if field.message_type is not None
    }
    return BatchingOptions(
        allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
        pad_variable_length_inputs=parameters.pad_variable_length_inputs,
        **wrapped,
    )


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
