"""A trained classifier over every window of a larger image, as the paper tests its networks (section 3)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_prelu.keras_internals import call_that_made
from keras_prelu.layer.pooling import SpatialPyramidPooling2D, window_and_stride
from keras_prelu.layer.prelu import PReLU

_GLOBAL_POOLINGS = {
    keras.layers.GlobalAveragePooling2D: keras.layers.AveragePooling2D,
    keras.layers.GlobalMaxPooling2D: keras.layers.MaxPooling2D,
}
_POOLINGS = (keras.layers.Flatten, SpatialPyramidPooling2D, *_GLOBAL_POOLINGS)
_DROPOUTS = (keras.layers.Dropout, keras.layers.AlphaDropout, keras.layers.GaussianDropout)

# The other layers that may follow the pooling; at inference each acts on every position alone.
_HEAD_LAYERS = (
    keras.layers.Dense,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
    keras.layers.BatchNormalization,
    keras.layers.PReLU,
    PReLU,
)


class _Bins(NamedTuple):
    """The bins that a dense layer sees of a window: their number, size and distance, each as (rows, columns)."""

    number: tuple[int, int]
    size: tuple[int, int]
    stride: tuple[int, int]


def fully_convolutional(model: keras.Model) -> keras.Model:
    """Turns a classifier of images of one size into one that classifies every window of a larger image.

    The classifier ends in one layer that joins all positions (`Flatten`, `SpatialPyramidPooling2D`,
    `GlobalAveragePooling2D` or `GlobalMaxPooling2D`) and dense layers, with rectifiers and dropout among them. The new
    model computes the last activations of the whole image once, and classifies each window of them that is as large as
    the classifier's own. This equals cutting the window out of the activations and running the rest of the classifier
    on it. Without padding, it also equals cutting windows out of the image, with a distance in pixels that is the
    product of the network's strides. With padding, the surroundings of a window change the activations at its borders.

    The first dense layer after `Flatten` becomes a convolution. After a spatial pyramid it becomes one dilated
    convolution per level over the level's running maximum, so the bins of a window are never copied. Weights are
    copied: the given model does not change, and training one does not change the other. The new model is for inference;
    it has no dropout.

    A `channels_first` model keeps its `channels_first` convolutions. On a CPU, TensorFlow runs those with oneDNN or in
    a compiled function (`jit_compile=True`); without either, the call raises `UnimplementedError`: "only supports the
    NHWC tensor format on the CPU".

    Args:
        model: A built Functional or Sequential model from one batch of images, of known height and width, to one
            output.

    Returns:
        A `keras.Model` from images of at least the classifier's height and width to `(batch, rows, columns, classes)`,
        one row and one column per position of the window, in either data format.

    Raises:
        ValueError: A model that is not of this form; the message names the layer.

    Examples:
        >>> import numpy as np
        >>> images = keras.Input((5, 5, 3))
        >>> maps = keras.layers.Conv2D(4, 3)(images)
        >>> scores = keras.layers.Dense(10)(keras.layers.Flatten()(maps))
        >>> dense = fully_convolutional(keras.Model(images, scores))
        >>> dense(np.zeros((1, 8, 6, 3), "float32")).shape == (1, 4, 2, 10)
        True

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 3 ("dense" testing), after Sermanet et al., "OverFeat",
        2013.
    """
    last_map, pooling, head = _split(model)
    channels_first = pooling.data_format == "channels_first"
    window = last_map.shape[2:] if channels_first else last_map.shape[1:3]
    features = _any_size(model, last_map, channels_first)
    x = features.outputs[0]
    if channels_first:
        x = keras.layers.Permute((2, 3, 1), dtype=pooling.dtype_policy, name="channels_last")(x)
    if type(pooling) in _GLOBAL_POOLINGS:
        running = _GLOBAL_POOLINGS[type(pooling)]
        x = running(window, 1, data_format="channels_last", dtype=pooling.dtype_policy, name=pooling.name)(x)
    else:
        x = _dense_over_windows(x, head.pop(0), _bins(pooling, window), window)
    copies = {layer.name: layer for layer in features.layers}
    for layer in head:
        if layer.name not in copies:  # a layer may be called more than once
            copies[layer.name] = _for_every_position(layer, x.shape)
        x = copies[layer.name](x)
    return keras.Model(features.inputs[0], x, name=f"{model.name}_fully_convolutional")


def _split(model: keras.Model) -> tuple[Any, keras.layers.Layer, list[keras.layers.Layer]]:
    """Walks from the output back to the pooling; returns its input, the pooling, and the layers that follow it."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ValueError(f"{model.name} must be a built Functional or Sequential model.")
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"{model.name} has {len(inputs)} inputs and {len(outputs)} outputs, but must have one of each."
        )
    head: list[keras.layers.Layer] = []
    layer, tensor = _made_by(outputs[0])
    while not isinstance(layer, _POOLINGS):
        if isinstance(layer, keras.layers.InputLayer):
            raise ValueError(f"{model.name} has no layer that combines all positions: {_names(_POOLINGS)}.")
        if not isinstance(layer, _DROPOUTS) and type(layer) not in _HEAD_LAYERS:
            raise ValueError(
                f"{layer.name}, a {type(layer).__name__}, can't be moved to every window: after the pooling there may "
                f"be {_names((*_HEAD_LAYERS, *_DROPOUTS))}."
            )
        head.insert(0, layer)
        layer, tensor = _made_by(tensor)
    head = [each for each in head if not isinstance(each, _DROPOUTS)]
    _check_head(layer, tensor, head)
    return tensor, layer, head


def _made_by(tensor: Any) -> tuple[Any, Any]:
    """The layer whose call gave a symbolic tensor, and the tensor that it took (None: nothing)."""
    call = call_that_made(tensor)
    return call.operation, call.inputs[0] if call.inputs else None


def _check_head(pooling: keras.layers.Layer, last_map: Any, head: Sequence[keras.layers.Layer]) -> None:
    if len(last_map.shape) != 4 or None in last_map.shape[1:]:
        raise ValueError(
            f"{pooling.name} takes {tuple(last_map.shape)}, but must take maps of known size: give the model's input a "
            "height and a width, those of a window."
        )
    if not any(isinstance(layer, keras.layers.Dense) for layer in head):
        raise ValueError(f"There is no Dense layer after {pooling.name}.")
    if type(pooling) not in _GLOBAL_POOLINGS and not isinstance(head[0], keras.layers.Dense):
        raise ValueError(f"{head[0].name} stands between {pooling.name} and the first Dense, where only dropout may.")
    for layer in head:
        if getattr(layer, "quantization_mode", None) is not None:
            raise ValueError(f"{layer.name} is quantized to {layer.quantization_mode}: convert the model before that.")


def _any_size(model: keras.Model, last_map: Any, channels_first: bool) -> keras.Model:
    """A copy of the layers up to the last map, for images of any size."""
    (given,) = model.inputs
    features = keras.Model(given, last_map)
    for layer in features.layers:
        if isinstance(layer, keras.Model):
            raise ValueError(f"{layer.name} is a model of its own; call its layers one by one instead.")
    shape = (given.shape[1], None, None) if channels_first else (None, None, given.shape[-1])
    images = keras.Input(shape, dtype=given.dtype, name=given.name)
    copy = keras.models.clone_model(features, input_tensors=images)
    for layer in features.layers:
        if layer.variables:
            _copy_weights(layer, copy.get_layer(layer.name))
    map_shape = copy.outputs[0].shape
    if (map_shape[2:] if channels_first else map_shape[1:3]) != (None, None):
        raise ValueError(
            f"The last map is {map_shape} whatever the image: take the layer that fixes its size out of {model.name}."
        )
    return copy


def _bins(pooling: keras.layers.Layer, window: tuple[int, int]) -> list[_Bins]:
    if isinstance(pooling, keras.layers.Flatten):
        return [_Bins(number=window, size=(1, 1), stride=(1, 1))]
    bins = []
    for level in pooling.levels:
        (height, row_stride), (width, column_stride) = (window_and_stride(size, level) for size in window)
        bins.append(_Bins((level, level), (height, width), (row_stride, column_stride)))
    return bins


def _dense_over_windows(x: Any, dense: keras.layers.Dense, levels: Sequence[_Bins], window: tuple[int, int]) -> Any:
    """The dense layer's answer for every window: the sum over levels of its answer for their bins."""
    answers, first = [], 0
    for index, bins in enumerate(levels, start=1):
        last = first + math.prod(bins.number) * x.shape[-1]
        kernel = ops.reshape(dense.kernel[first:last], (*bins.number, x.shape[-1], dense.units))
        bias = dense.bias if dense.use_bias and index == 1 else None
        maximum = _running_maximum(x, bins, window, f"{dense.name}_bins{index}", x.dtype)
        answers.append(_convolve(maximum, bins, kernel, bias, f"{dense.name}_level{index}", dense.dtype_policy))
        first = last
    x = (
        keras.layers.Add(dtype=dense.dtype_policy, name=f"{dense.name}_sum")(answers)
        if len(answers) > 1
        else answers[0]
    )
    return keras.layers.Activation(dense.activation, dtype=dense.dtype_policy, name=dense.name)(x)


def _running_maximum(x: Any, bins: _Bins, window: tuple[int, int], name: str, dtype: str) -> Any:
    """The maximum over a bin's size at each position, except for positions that no window reaches."""
    seen = [(n - 1) * stride + size for n, size, stride in zip(*bins, strict=True)]
    unseen = [(0, size - each) for size, each in zip(window, seen, strict=True)]
    if unseen != [(0, 0), (0, 0)]:
        x = keras.layers.Cropping2D(tuple(unseen), data_format="channels_last", dtype=dtype, name=f"{name}_cropped")(x)
    if bins.size == (1, 1):
        return x
    return keras.layers.MaxPooling2D(bins.size, 1, data_format="channels_last", dtype=dtype, name=name)(x)


def _convolve(x: Any, bins: _Bins, kernel: Any, bias: Any, name: str, dtype: Any) -> Any:
    layer = keras.layers.Conv2D(
        kernel.shape[-1],
        bins.number,
        dilation_rate=tuple(stride if n > 1 else 1 for n, stride in zip(bins.number, bins.stride, strict=True)),
        data_format="channels_last",
        use_bias=bias is not None,
        kernel_initializer="zeros",
        dtype=dtype,
        name=name,
    )
    x = layer(x)
    layer.kernel.assign(kernel)
    if bias is not None:
        layer.bias.assign(bias)
    return x


def _for_every_position(layer: keras.layers.Layer, shape: Sequence[int | None]) -> keras.layers.Layer:
    """A copy of a layer that took `(batch, features)`, for `(batch, rows, columns, features)`."""
    changes: dict[str, Any] = {}
    if isinstance(layer, keras.layers.Softmax | keras.layers.BatchNormalization):
        changes["axis"] = -1
    elif isinstance(layer, PReLU) and layer.slope_per == "group":
        changes["data_format"] = "channels_last"
    elif isinstance(layer, PReLU | keras.layers.PReLU):
        changes["shared_axes"] = [1, 2] if math.prod(layer.alpha.shape) > 1 else [1, 2, 3]
    if "shared_axes" in changes and isinstance(layer, PReLU):
        changes["slope_per"] = None
    copy = type(layer).from_config({**layer.get_config(), **changes})
    copy.build(shape)
    _copy_weights(layer, copy)
    return copy


def _copy_weights(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    sizes = [[math.prod(variable.shape) for variable in each.variables] for each in (layer, copy)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{layer.name} has weights that depend on the size of its input.")
    for new, old in zip(copy.variables, layer.variables, strict=True):
        new.assign(ops.reshape(old, new.shape))


def _names(types: Sequence[type]) -> str:
    return ", ".join(dict.fromkeys(each.__name__ for each in types))
