"""What a network costs: the multiply-adds of its convolutions and dense layers."""

import math

import keras

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


def multiply_adds(model: keras.Model) -> int:
    """How many multiplications, each with its addition, one image takes in convolutions and dense layers.

    As papers count: biases, rectifiers and poolings are left out, and a padded convolution counts the taps that lie on
    zeros. It needs shapes only, so that a network of any size can be counted.

    Args:
        model: A Functional or Sequential model whose input size is known.

    Returns:
        The sum over layers of kernel entries times output positions.

    Raises:
        ValueError: An output of unknown size, or a layer whose cost is not known here: one with a matrix or kernel of
            weights that is neither a convolution (`Conv1D`, `Conv2D`, `Conv3D`) nor `Dense`.

    Example:
        >>> images = keras.Input((8, 8, 3))
        >>> maps = keras.layers.Conv2D(16, 3, padding="same")(images)
        >>> multiply_adds(keras.Model(images, maps))  # 8 x 8 positions, a kernel of 3 x 3 x 3 x 16
        27648
    """
    return sum(_layer_multiply_adds(layer) for layer in model.layers)


def _layer_multiply_adds(layer: keras.layers.Layer) -> int:
    if not isinstance(layer, (*_CONVOLUTIONS, keras.layers.Dense)):
        if any(math.prod(weight.shape) > max(weight.shape) for weight in layer.trainable_weights if weight.shape):
            raise ValueError(f"The multiply-adds of {layer.name}, a {type(layer).__name__}, are not known here.")
        return 0
    shape = layer.output.shape
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    positions = shape[2:] if channels_first else shape[1:-1]
    if None in positions:
        raise ValueError(f"The output of {layer.name} is {shape}: give the model's input a height and a width.")
    return math.prod(positions) * math.prod(layer.kernel.shape)
