"""Rows of several requests <-> one array: what merges, what fills up, what is given back."""

from collections.abc import Mapping, Sequence

import numpy as np

from serving.errors import Code, ServingError, invalid_argument

Feeds = Mapping[str, np.ndarray]


def count_rows(feeds: Feeds) -> int:
    """The size of dimension 0, which all inputs must share. Raises ServingError where they do not."""
    sizes = set()
    for array in feeds.values():
        if array.ndim == 0:
            raise invalid_argument("Batching Run() input tensors must have at least one dimension")
        sizes.add(len(array))
    if not sizes:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    if len(sizes) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def merge(requests: Sequence[Feeds], size: int, pads_shapes: bool) -> Feeds:
    """The rows of all requests in their order, filled up to a size with the first row of the last request."""
    return {name: _merge([each[name] for each in requests], size, pads_shapes) for name in requests[0]}


def split(outputs: Sequence[np.ndarray], sizes: Sequence[int], size: int) -> list[list[np.ndarray]]:
    """Each request's rows of the outputs of a run of `size` rows; what filled the run up is dropped.

    Raises ServingError where the outputs have other rows than the run.
    """
    for output in outputs:
        if output.ndim == 0:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(output) != size:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                "input tensors",
            )
    parts, start = [], 0
    for rows in sizes:
        parts.append([output[start : start + rows] for output in outputs])
        start += rows
    return parts


def _merge(arrays: list[np.ndarray], size: int, pads_shapes: bool) -> np.ndarray:
    if pads_shapes and len(arrays) > 1:
        arrays = _padded_alike(arrays)
    missing = size - sum(map(len, arrays))
    if missing:
        last = next(array for array in reversed(arrays) if len(array))
        arrays = [*arrays, np.repeat(last[:1], missing, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _padded_alike(arrays: list[np.ndarray]) -> list[np.ndarray]:
    inner = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
    return [_padded(array, inner) for array in arrays]


def _padded(array: np.ndarray, inner: tuple[int, ...]) -> np.ndarray:
    if array.shape[1:] == inner:
        return array
    zero = b"" if array.dtype.kind == "O" else 0
    padded = np.full((len(array), *inner), zero, array.dtype)
    padded[tuple(map(slice, array.shape))] = array
    return padded
