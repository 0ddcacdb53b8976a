"""The features of a tf.Example, each a list of one kind."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from serving.client.pictures import encoded, is_picture


class Feature(NamedTuple):
    """Values of one kind: "bytes", "int64" or "float"."""

    kind: str
    values: list[Any]


Features = Mapping[str, Feature]


def to_features(example: Mapping[str, Any]) -> Features:
    """The features of an example given as numbers, text, bytes, files, pictures, and lists or arrays of them.

    Raises:
        ValueError: A feature holds values of several kinds, or of none that an example can hold.
        OSError: A file cannot be read.
    """
    return {name: _feature(name, value) for name, value in example.items()}


def _feature(name: str, value: Any) -> Feature:
    if isinstance(value, np.ndarray):
        value = value.reshape(-1).tolist()
    alone = isinstance(value, str) or is_picture(value) or not isinstance(value, Iterable)
    values = [value] if alone else list(value)
    kinds = {_kind(each) for each in values}
    if kinds == {"int64", "float"}:
        kinds = {"float"}
    if len(kinds) > 1 or None in kinds:
        types = ", ".join(sorted({type(each).__name__ for each in values}))
        raise ValueError(f"feature {name} must be integers, floats or bytes, and is of type {types}")
    kind = next(iter(kinds), None) or "float"
    return Feature(kind, [_CONVERSIONS[kind](each) for each in values])


def _kind(value: Any) -> str | None:
    if isinstance(value, bool | int | np.integer | np.bool_):
        return "int64"
    if isinstance(value, float | np.floating):
        return "float"
    return "bytes" if isinstance(value, str) or is_picture(value) else None


def _to_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else encoded(value)


_CONVERSIONS: Mapping[str, Any] = {"int64": int, "float": float, "bytes": _to_bytes}
