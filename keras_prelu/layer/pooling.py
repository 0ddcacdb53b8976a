"""Spatial pyramid pooling: a map of any size to a vector of one length."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def window_and_stride(size: Any, level: int) -> tuple[Any, Any]:
    """Along one axis of `size` positions, bin i of a level is `[i * stride, i * stride + window)`.

    $$\\text{window} = \\lceil \\text{size} / \\text{level} \\rceil, \\qquad
    \\text{stride} = \\lfloor \\text{size} / \\text{level} \\rfloor$$

    Args:
        size: Number of positions, a Python integer or an integer tensor.
        level: Number of bins.

    Returns:
        The window and the stride, of the kind of `size`.

    Examples:
        >>> window_and_stride(14, 3)  # bins [0, 5), [4, 9) and [8, 13)
        (5, 4)

    Reference:
        He et al., "Spatial Pyramid Pooling in Deep Convolutional Networks", 2014, section 2.3.
    """
    return -(-size // level), size // level


@keras.saving.register_keras_serializable(package="keras_prelu")
class SpatialPyramidPooling2D(keras.layers.Layer):
    """Max pooling into n x n bins for each level n: dense layers after it take images of any size.

    Height and width are cut separately, each into n bins of ceil(size / n) positions that begin floor(size / n)
    apart. Neighbouring bins so overlap by one position where n does not divide the size, and the last
    `size % n - 1` positions then belong to no bin of that level: 14 positions and n = 3 give [0, 5), [4, 9) and
    [8, 13). These are the bins of the published formula, with which the paper's networks were trained. They are not
    those of adaptive pooling ([0, 5), [4, 10) and [9, 14)), which reach to the end. Between n and 2n positions much
    can stay unseen, 4 of 11 for n = 6; a level of 1 sees all.

    Args:
        levels: How many bins each level has along an axis. The paper's 14-layer network has (6, 3, 2, 1), its large
            ones (7, 3, 2, 1).
        data_format: `"channels_last"` or `"channels_first"`. Default: Keras's own `image_data_format`.
        **kwargs: `name`, `dtype` and what else `keras.layers.Layer` takes.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` with
        `data_format="channels_first"`. Height and width may differ, from call to call too, and may be unknown.

    Output shape:
        `(batch, channels * sum(n * n for n in levels))`: level after level as given, in each the bins row by row,
        in each bin the channels, whatever the data format.

    Raises:
        ValueError: Levels that are not positive integers, an input that is not a batch of maps with a known number of
            channels, or a map with fewer rows or columns than a level has bins. Where TensorFlow learns the map's
            size only as the graph runs, that last one is an `InvalidArgumentError` at an operation named
            `level_<n>_is_larger_than_the_map`.

    Examples:
        >>> import numpy as np
        >>> values = np.arange(12, dtype="float32").reshape(1, 3, 4, 1)
        >>> np.asarray(SpatialPyramidPooling2D(levels=(2, 1))(values))
        array([[ 5.,  7.,  9., 11., 11.]], dtype=float32)

    Reference:
        He et al., "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition", 2014, section 2.3
        (https://arxiv.org/abs/1406.4729).
    """

    def __init__(self, levels: Sequence[int] = (6, 3, 2, 1), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = tuple(levels)
        if not self.levels or not all(type(level) is int and level > 0 for level in self.levels):
            raise ValueError(f"levels is {levels!r}, but must be one or more positive integers, such as (6, 3, 2, 1).")
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f'data_format is {data_format!r}, but must be "channels_last" or "channels_first".')

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Checks the shape: there is no weight."""
        self.compute_output_shape(input_shape)
        axis = 1 if self.data_format == "channels_first" else 3
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={axis: input_shape[axis]})

    def call(self, inputs: Any) -> Any:
        """Pools every level and joins them."""
        if self.data_format == "channels_first":
            inputs = ops.moveaxis(inputs, 1, 3)
        batch, height, width, channels = ops.shape(inputs)
        if isinstance(height, int) and isinstance(width, int):
            self._check_size(height, width)
            pool = _pool_known_size
        else:
            pool = _pool_unknown_size
        levels = [ops.reshape(pool(inputs, level), (batch, level * level * channels)) for level in self.levels]
        return ops.concatenate(levels, axis=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        """`(batch, channels * sum(n * n for n in levels))`."""
        if len(input_shape) != 4:
            raise ValueError(f"{self.name} pools (batch, height, width, channels), not {tuple(input_shape)}.")
        if self.data_format == "channels_first":
            batch, channels, height, width = input_shape
        else:
            batch, height, width, channels = input_shape
        if channels is None:
            raise ValueError(f"The number of channels of {tuple(input_shape)} must be known to {self.name}.")
        self._check_size(height, width)
        return batch, channels * sum(level * level for level in self.levels)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "levels": self.levels, "data_format": self.data_format}

    def _check_size(self, height: int | None, width: int | None) -> None:
        least = max(self.levels)
        if min(math.inf if size is None else size for size in (height, width)) < least:
            raise ValueError(
                f"{self.name} has a level of {least}x{least} bins and needs a map of at least as many positions, "
                f"not {height}x{width}: give it a larger image or smaller levels."
            )


def _pool_known_size(maps: Any, level: int) -> Any:
    (row_window, row_stride), (column_window, column_stride) = (
        window_and_stride(size, level) for size in maps.shape[1:3]
    )
    # Where size % level is large, further windows would fit behind the last bin.
    maps = maps[:, : (level - 1) * row_stride + row_window, : (level - 1) * column_stride + column_window]
    return ops.max_pool(
        maps, (row_window, column_window), (row_stride, column_stride), padding="valid", data_format="channels_last"
    )


def _pool_unknown_size(maps: Any, level: int) -> Any:
    with keras.name_scope(f"level_{level}_is_larger_than_the_map"):  # what an error of the slices says
        return _pool_columns(ops.swapaxes(_pool_columns(ops.swapaxes(maps, 1, 2), level), 1, 2), level)


def _pool_columns(maps: Any, level: int) -> Any:
    batch, height, width, channels = ops.shape(maps)
    window, stride = window_and_stride(width, level)
    # A stride of 0 would make every bin the first position; with 1 the last bins lie outside and the slice fails.
    stride = ops.maximum(stride, 1)
    bins = [
        ops.max(ops.slice(maps, (0, 0, index * stride, 0), (batch, height, window, channels)), axis=2)
        for index in range(level)
    ]
    return ops.stack(bins, axis=2)
