"""Gives memory back to the system, which unloaded models would otherwise keep."""

import ctypes


def give_back() -> None:
    """Frees the pages of the heap that hold nothing any more, which the C library would keep."""
    # The C library of macOS or of Alpine has no such function, and needs none.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
