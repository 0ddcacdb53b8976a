"""The differences between two answers, in words."""

import math
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np

from serving.parity.servers import Answer

_LONGEST_VALUE = 60  # characters of it that are shown


def differences(a: Answer, b: Answer, tolerance: float) -> Iterator[str]:
    """Yields a line for each difference between the answers of A and B.

    Numbers are alike within the tolerance, relative to the larger where that is above 1. One text may be longer
    than the other by whole lines, which explain an error.
    """
    if a.status != b.status:
        yield f"status: {a.status} / {b.status}"
    if not _explains(a.text, b.text):
        yield f"text: {a.text!r} / {b.text!r}"
    if a.status == b.status:
        yield from _compare(a.content, b.content, tolerance, "")


def _explains(a: str, b: str) -> bool:
    shorter, longer = sorted((a, b), key=len)
    return longer == shorter or (bool(shorter) and longer.startswith(shorter + "\n"))


def _compare(a: Any, b: Any, tolerance: float, place: str) -> Iterator[str]:
    where = f"{place}: " if place else ""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        yield from (where + line for line in _compare_arrays(a, b, tolerance))
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            inner = f"{place}.{key}".lstrip(".")
            if key in a and key in b:
                yield from _compare(a[key], b[key], tolerance, inner)
            else:
                yield f"{inner}: only {'A' if key in a else 'B'} has it"
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (left, right) in enumerate(zip_longest(a, b)):
            yield from _compare(left, right, tolerance, f"{place}[{index}]")
    elif isinstance(a, list) and isinstance(b, list):
        yield f"{where}{len(a)} / {len(b)} elements"
    elif type(a) is not type(b) or not _alike(a, b, tolerance):
        yield f"{where}{_shown(a)} / {_shown(b)}"


def _alike(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _compare_arrays(a: np.ndarray, b: np.ndarray, tolerance: float) -> Iterator[str]:
    if a.shape != b.shape:
        yield f"shape {list(a.shape)} / {list(b.shape)}"
    elif a.dtype.kind in "OSUb" or a.dtype != b.dtype:
        if number := int(np.sum(a != b)):
            yield f"{number} of {a.size} values differ"
    else:
        wide = np.complex128 if a.dtype.kind == "c" else np.float64
        a, b = a.astype(wide), b.astype(wide)
        differ = ~np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        if differ.any():
            most = np.max(np.abs(a[differ] - b[differ]))
            yield f"{differ.sum()} of {a.size} numbers differ, by {most:.3g} at most"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
