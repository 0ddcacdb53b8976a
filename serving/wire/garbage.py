"""Python's cyclic garbage collector, which stands still while very many objects are made that are no garbage."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_num_pausing = 0


@contextmanager
def without_collections() -> Iterator[None]:
    """Collects nothing meanwhile. A parser makes lists by the million, and each collection would go through all."""
    global _num_pausing
    with _lock:
        _num_pausing += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _num_pausing -= 1
            if not _num_pausing:
                gc.enable()
