"""The rectifiers that a network can have, by name."""

import keras

from keras_prelu.layer.prelu import PReLU

_SLOPES = {
    "relu": 0.0,
    "leaky_relu": 0.01,  # section 2.1
    "prelu": 0.25,
    "prelu_shared": 0.25,
}


def initial_slope(rectifier: str) -> float:
    """The slope for negative inputs with which a network starts.

    Args:
        rectifier: `"relu"`, `"leaky_relu"`, `"prelu"` (a slope per channel) or `"prelu_shared"` (one per layer).

    Returns:
        0, 0.01, or 0.25 for both kinds of learnt slopes.

    Raises:
        ValueError: Another name.

    Example:
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

    Example:
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
