"""Plain networks for small images, and the rectifiers that a network can have, by name."""

from collections.abc import Sequence

import keras

from keras_prelu.initialization.initializers import HeNormal
from keras_prelu.layer.prelu import PReLU

_SLOPES = {
    "relu": 0.0,
    "leaky_relu": 0.01,  # section 2.1
    "prelu": 0.25,
    "prelu_shared": 0.25,
}


def small_network(
    input_shape: tuple[int | None, int | None, int],
    num_classes: int,
    filters: Sequence[int] = (32, 64),
    convolutions: int = 2,
    rectifier: str = "prelu",
    *,
    dropout: float = 0.0,
    seed: int | None = None,
) -> keras.Model:
    """A plain network for images of 8 to 64 pixels: stages of 3x3 convolutions, each followed by a rectifier.

    Each stage but the first begins with a 2x2 max pooling; the last ends in an average over positions and one dense
    layer. Pixels from 0 to 255 come in and are scaled to -1..1 inside the model.
    Kernels start with the variance of equation 15 in forward mode; the first kernel has that of a linear input. So 50
    convolutions learn from the first step without any normalization, if the gradient's norm is clipped. Zero padding
    costs part of the signal at the borders: about a tenth of its variance per convolution on 8x8 positions, more on
    fewer.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        num_classes: The number of classes.
        filters: The number of channels per stage.
        convolutions: The number of convolutions per stage.
        rectifier: `"relu"`, `"leaky_relu"` (slope 0.01), `"prelu"` (a learnt slope per channel) or `"prelu_shared"`
            (one per layer).
        dropout: The fraction of the last layer's inputs that is dropped in training.
        seed: Makes the initial weights and the dropout repeatable.

    Returns:
        A built `keras.Model` from float32 images `(batch, height, width, channels)` in 0..255 to float32 logits
        `(batch, num_classes)`. Its layers are `conv<stage>_<index>`, `conv<stage>_<index>_rectifier`, `pool<stage>`,
        `average`, `dropout` where there is one, and `logits`.

    Raises:
        ValueError: An image that is too small for its poolings, a network without a stage or convolution, or an
            unknown rectifier.

    Examples:
        >>> small_network((8, 8, 1), num_classes=10).count_params()
        65834
    """
    slope = initial_slope(rectifier)
    _check_size(input_shape, len(filters), convolutions)
    images = keras.Input(input_shape, name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(images)
    seeds = keras.random.SeedGenerator(seed)
    slope_before = 1.0  # no rectifier stands before the first layer
    for stage, channels in enumerate(filters, start=1):
        if stage > 1:
            x = keras.layers.MaxPooling2D(2, data_format="channels_last", name=f"pool{stage - 1}")(x)
        for index in range(1, convolutions + 1):
            name = f"conv{stage}_{index}"
            initializer = HeNormal(seeds, negative_slope=slope_before)
            x = keras.layers.Conv2D(
                channels, 3, padding="same", data_format="channels_last", kernel_initializer=initializer, name=name
            )(x)
            x = make_rectifier(rectifier, name=f"{name}_rectifier")(x)
            slope_before = slope
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="average")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=HeNormal(seeds, negative_slope=1.0), dtype="float32", name="logits"
    )(x)
    return keras.Model(images, logits, name="small_network")


def _check_size(input_shape: tuple[int | None, int | None, int], stages: int, convolutions: int) -> None:
    if stages < 1 or convolutions < 1:
        raise ValueError(f"There must be a stage and a convolution in it at least, not {stages} and {convolutions}.")
    height, width, _ = input_shape
    smallest = 2 ** (stages - 1)
    if any(size is not None and size < smallest for size in (height, width)):
        raise ValueError(
            f"{stages} stages halve an image {stages - 1} times: it must have at least "
            f"{smallest}x{smallest} pixels, not {height}x{width}."
        )


def initial_slope(rectifier: str) -> float:
    """The slope for negative inputs with which a network starts.

    Args:
        rectifier: `"relu"`, `"leaky_relu"`, `"prelu"` (a slope per channel) or `"prelu_shared"` (one per layer).

    Returns:
        0, 0.01, or 0.25 for both kinds of learnt slopes.

    Raises:
        ValueError: Another name.

    Examples:
        >>> initial_slope("leaky_relu")
        0.01
    """
    if rectifier not in _SLOPES:
        raise ValueError(f"rectifier is {rectifier!r}, but must be one of {', '.join(_SLOPES)}.")
    return _SLOPES[rectifier]


def make_rectifier(rectifier: str, name: str) -> keras.layers.Layer:
    """The layer of that name, for channels-last inputs of any rank.

    Args:
        rectifier: As in `initial_slope`.
        name: The layer's own name.

    Returns:
        A new layer.

    Raises:
        ValueError: An unknown rectifier.

    Examples:
        >>> make_rectifier("prelu_shared", name="conv1_rectifier").slope_per
        'layer'
    """
    slope = initial_slope(rectifier)
    if rectifier == "relu":
        return keras.layers.ReLU(name=name)
    if rectifier == "leaky_relu":
        return keras.layers.LeakyReLU(negative_slope=slope, name=name)
    slope_per = "channel" if rectifier == "prelu" else "layer"
    return PReLU(alpha_initializer=slope, slope_per=slope_per, data_format="channels_last", name=name)
