"""Bounds what requests grow to when they are read: values that are repeated, bodies that are inflated."""

from collections.abc import Sequence

import numpy as np

from serving.errors import invalid_argument

LARGEST_EXPANSION = 100 * 1024 * 1024
"""Bytes to which a request may grow, as a compressed body may in TensorFlow Serving."""


def with_context(context: bytes, examples: Sequence[bytes]) -> np.ndarray:
    """Serialized examples, each behind the context of all: it parses as the union of both.

    Raises ServingError where the context is repeated too often for its length.
    """
    if len(context) * len(examples) > LARGEST_EXPANSION:
        raise invalid_argument(
            f"A context of {len(context)} bytes for {len(examples)} examples: repeated for each it may have "
            f"{LARGEST_EXPANSION} bytes"
        )
    array = np.empty(len(examples), object)
    array[:] = [context + example for example in examples]
    return array
