"""The layers of a model that hold a kernel, and names that tell layers of nested models apart."""

import keras

from keras_prelu.initialization.fans import fans
from keras_prelu.initialization.graph import trace


def layer_kernels(layer: keras.Layer) -> list[keras.Variable]:
    """The kernels of a layer that are its own, not those of layers inside it.

    Args:
        layer: Any layer. One that is not built has none yet.

    Returns:
        The kernels whose fans are known, but none of a recurrent cell's: its signal runs through time, not depth.

    Example:
        >>> dense = keras.layers.Dense(2, name="dense")
        >>> model = keras.Sequential([keras.Input((3,)), dense])
        >>> [len(layer_kernels(layer)) for layer in (model, dense)]
        [0, 1]
    """
    if not layer.built or hasattr(layer, "recurrent_kernel"):
        return []
    return [row.kernel for row in fans(layer) if row.layer is layer]


def layer_paths(model: keras.Model) -> dict[int, str]:
    """The path of each layer that a model's graph calls, by the layer's id.

    Args:
        model: Any model.

    Returns:
        The names of the nested models around a layer and its own, joined by slashes, where the layer is called first.
        Empty for a model without a graph.

    Example:
        >>> dense = keras.layers.Dense(2, name="dense")
        >>> model = keras.Sequential([keras.Input((3,)), keras.Sequential([dense], name="inner")])
        >>> layer_paths(model)[id(dense)]
        'inner/dense'
    """
    try:
        calls = trace(model).calls
    except ValueError:
        return {}
    return {id(call.operation): call.path for call in reversed(calls)}
