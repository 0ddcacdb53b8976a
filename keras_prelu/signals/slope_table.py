"""The learnt slopes of a model, as in the paper's Table 1."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_prelu.layer.slopes import slope_layers, slope_values
from keras_prelu.tables import text_table
from keras_prelu.walk.fans import layer_kernels
from keras_prelu.walk.graph import flatten_layers, layer_paths, trace


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSlopes:
    """The slopes of one rectifier.

    Attributes:
        layer: The path of the layer before the rectifier, by which the paper names a row; empty where there is none.
        spec: That layer's kernel size, filters and stride, as `"7x7, 64, /2"`, or its units.
        rectifier: The rectifier's own path.
        num_slopes: The number of slopes: 1 if all channels share one.
        mean: The mean of the slopes.
        minimum: The smallest slope.
        maximum: The largest slope.
        standard_deviation: The standard deviation of the slopes about their mean, divided by n and not by n - 1.
    """

    layer: str
    spec: str
    rectifier: str
    num_slopes: int
    mean: float
    minimum: float
    maximum: float
    standard_deviation: float


@dataclasses.dataclass(frozen=True)
class SlopeTable:
    """A row for each rectifier with learnt slopes; `str()` of it is aligned text."""

    rows: tuple[LayerSlopes, ...]

    def table(self) -> str:
        """The rows as text; a shared slope shows as its value alone."""
        header = ["layer", "spec", "rectifier", "slopes", "mean", "minimum", "maximum", "std"]
        return text_table(
            header,
            [
                (row.layer, row.spec, row.rectifier, row.num_slopes, row.mean, *spread)
                for row in self.rows
                for spread in [
                    (row.minimum, row.maximum, row.standard_deviation) if row.num_slopes > 1 else (None,) * 3
                ]
            ],
        )

    def __str__(self) -> str:
        return self.table()


def slope_table(model: keras.Model) -> SlopeTable:
    """Lists the slopes that a model has learnt, layer by layer.

    It lists `keras_prelu.PReLU` and `keras.layers.PReLU`, also in nested models and in layers made of layers.
    Rectifiers of fixed slope, ReLU and LeakyReLU, are left out.

    Args:
        model: A built model of any kind.

    Returns:
        The table. `print` shows it, `rows` holds the numbers.

    Raises:
        ValueError: A model that is not built, which has no slopes yet.

    Examples:
        >>> from keras_prelu import PReLU
        >>> model = keras.Sequential(
        ...     [
        ...         keras.Input((32, 32, 3)),
        ...         keras.layers.Conv2D(64, 7, strides=2, name="conv1"),
        ...         PReLU(name="prelu1"),
        ...         keras.layers.Flatten(),
        ...         keras.layers.Dense(10, name="fc1"),
        ...         PReLU(0.5, slope_per="layer", name="prelu2"),
        ...     ]
        ... )
        >>> print(slope_table(model))
        layer  spec         rectifier  slopes  mean  minimum  maximum  std
        conv1  7x7, 64, /2  prelu1         64  0.25     0.25     0.25    0
        fc1    10           prelu2          1   0.5        -        -    -

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, Table 1.
    """
    paths = layer_paths(model)
    before = _layers_before(model)
    rows = []
    for rectifier in slope_layers(model):
        layer = before.get(id(rectifier))
        values = slope_values(rectifier).astype("float64")
        rows.append(
            LayerSlopes(
                layer=paths.get(id(layer), layer.path) if layer is not None else "",
                spec=_spec(layer),
                rectifier=paths.get(id(rectifier), rectifier.path),
                num_slopes=values.size,
                mean=float(values.mean()),
                minimum=float(values.min()),
                maximum=float(values.max()),
                standard_deviation=float(values.std()),
            )
        )
    return SlopeTable(tuple(rows))


def _layers_before(model: keras.Model) -> dict[int, keras.Layer]:
    """The last layer with a kernel before each layer with slopes, by the id of the latter."""
    before, latest = {}, None
    for layer in flatten_layers(model):  # all there is to go by inside composite layers and subclassed models
        latest = layer if layer_kernels(layer) else latest
        before[id(layer)] = latest
    try:
        calls = trace(model).calls
    except ValueError:
        return before
    sources: dict[int, Any] = {}
    for call in calls:
        kernel_layers = [sources.get(tensor) for tensor in call.inputs]
        source = next((layer for layer in kernel_layers if layer is not None), None)
        before[id(call.operation)] = source
        if isinstance(call.operation, keras.Layer) and layer_kernels(call.operation):  # or an operation of keras.ops
            source = call.operation
        sources.update(dict.fromkeys(call.outputs, source))
    return before


def _spec(layer: keras.Layer | None) -> str:
    """Kernel size, filters and stride as the paper writes them, or a dense layer's units."""
    size, strides = getattr(layer, "kernel_size", None), np.ravel(getattr(layer, "strides", 1))
    filters = getattr(layer, "filters", None) or getattr(layer, "units", None)
    parts = [_times(size)] if size else []
    parts += [str(filters)] if filters else []
    parts += ["/" + _times(strides if np.ptp(strides) else strides[:1])] if size and strides.max() > 1 else []
    return ", ".join(parts)


def _times(sizes: Iterable[int]) -> str:
    """`7x7` for (7, 7)."""
    return "x".join(map(str, sizes))
