"""The statistics of a batch of data, as a `Signal`."""

from typing import Any

import numpy as np
from keras import ops

from keras_prelu.walk.positions import NEAR
from keras_prelu.walk.signal import Signal


def measured_signal(batch: Any) -> Signal:
    """Measures what a walk needs to know of the data.

    Args:
        batch: Shape `(images, ..., channels)`, at least two images.

    Returns:
        A signal of one group with a position axis for each axis between the first and the last.

    Raises:
        ValueError: Fewer than two images, or values that are not finite.

    Examples:
        >>> signal = measured_signal(np.random.default_rng(0).normal(2.0, 1.0, (64, 8, 8, 3)))
        >>> round(signal.second_moment), round(signal.likeness, 1)
        (5, 0.8)
    """
    values = np.asarray(ops.convert_to_numpy(batch), "float64")
    if values.ndim < 2 or len(values) < 2 or not values.size:
        raise ValueError(
            f"The batch has shape {values.shape}: it must be (images, ..., channels) with two images or more."
        )
    if not np.isfinite(values).all():
        raise ValueError("The batch has values that are not finite.")
    sums = values.sum(axis=tuple(range(1, values.ndim - 1)))  # (images, channels)
    positions = int(np.prod(values.shape[1:-1]))
    number = len(values)
    others = float(np.mean((sums.sum(0) ** 2 - np.square(sums).sum(0)) / (number * (number - 1) * positions**2)))
    near = _autocovariance(values)
    return Signal(np.ones(1), np.array([values.mean()]), near[np.newaxis], np.array([others]))


def _autocovariance(values: Any) -> Any:
    """The mean product of two values of one image and channel, by their distance along each axis."""
    axes, sizes = tuple(range(1, values.ndim - 1)), values.shape[1:-1]
    if not axes:
        return np.asarray(np.mean(np.square(values)))
    lengths = [2 * size for size in sizes]
    spectrum = np.fft.rfftn(values, lengths, axes)
    power = np.mean(np.square(np.abs(spectrum)), axis=(0, -1))
    products = np.fft.irfftn(power, lengths, tuple(range(len(sizes))))  # sums over all pairs at each distance
    pairs: Any = np.ones(())
    for axis, size in enumerate(sizes):
        distances = np.minimum(np.arange(2 * size), 2 * size - np.arange(2 * size))
        inside = np.maximum(size - distances, 0).astype("float64")
        bins = np.minimum(distances, NEAR + 1)
        summed = np.zeros((NEAR + 2, 2 * size))
        summed[bins, np.arange(2 * size)] = inside > 0
        products = np.moveaxis(np.tensordot(summed, products, (1, axis)), 0, axis)
        pairs = np.multiply.outer(pairs, summed @ inside)
    near = products / np.maximum(pairs, 1e-300)
    for axis, size in enumerate(sizes):  # distances that an axis is too short for are as its largest
        if size < NEAR + 2:
            index = np.minimum(np.arange(NEAR + 2), size - 1)
            near = np.take(near, index, axis=axis)
    return near
