"""Gives memory back to the system, which unloaded models would otherwise keep."""

import ctypes
import gc


def give_back() -> None:
    """Frees what is unreachable, and the pages of the heap that hold nothing any more.

    TensorFlow's graphs are full of cycles, and the C library keeps their pages: a megabyte a reload of a small model.
    """
    gc.collect()
    # The C library of macOS or of Alpine has no such function, and needs none.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
