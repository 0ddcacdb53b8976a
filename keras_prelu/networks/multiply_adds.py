"""The cost of a network: the multiply-adds of its convolutions and dense layers."""

import math

import keras

from keras_prelu.walk.graph import Call, trace

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


def multiply_adds(model: keras.Model) -> int:
    """Counts the multiplications, each with its addition, that convolutions and dense layers take per image.

    It counts as papers do: biases, rectifiers and poolings are left out, and a padded convolution counts the products
    with padded zeros. A layer that is called twice counts twice.

    Args:
        model: A Functional or Sequential model whose input size is known.

    Returns:
        The sum over layers of kernel entries times output positions.

    Raises:
        ValueError: An output of unknown size, or a layer whose cost is not known here: one with a matrix or kernel of
            weights that is neither a convolution (`Conv1D`, `Conv2D`, `Conv3D`) nor `Dense`.

    Examples:
        >>> images = keras.Input((8, 8, 3))
        >>> maps = keras.layers.Conv2D(16, 3, padding="same")(images)
        >>> multiply_adds(keras.Model(images, maps))  # 8 x 8 positions, a kernel of 3 x 3 x 3 x 16
        27648
    """
    return sum(_call_multiply_adds(call) for call in trace(model).calls)


def _call_multiply_adds(call: Call) -> int:
    layer = call.operation
    if not isinstance(layer, (*_CONVOLUTIONS, keras.layers.Dense)):
        weights = getattr(layer, "trainable_weights", ())
        if any(math.prod(weight.shape) > max(weight.shape, default=1) for weight in weights):
            raise ValueError(f"The multiply-adds of {call.path}, a {type(layer).__name__}, are not known here.")
        return 0
    shape = layer.compute_output_shape(call.input_shapes[0])
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    positions = shape[2:] if channels_first else shape[1:-1]
    if None in positions:
        raise ValueError(f"The output of {call.path} is {shape}: give the model's input a height and a width.")
    return math.prod(positions) * math.prod(layer.kernel.shape)
