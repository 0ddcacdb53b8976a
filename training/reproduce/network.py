"""The network of the trials: Table 1's, at a size for images of 28 to 96 pixels."""

from collections.abc import Sequence

import keras

from keras_prelu import HeNormal, PReLU, SpatialPyramidPooling2D, initialize
from keras_prelu.layer.slopes import slope_layers

_DEPTH = 14  # of Table 1: conv1, four and six convolutions, three dense layers
_STD = 0.01  # section 2.2: "fixed standard deviations (e.g., 0.01 in [16])"


def plain_network(
    image_shape: tuple[int | None, int | None, int],
    num_classes: int,
    *,
    depth: int = _DEPTH,
    filters: Sequence[int] = (32, 64, 128),
    rectifier: str = "prelu",
    slope_decay: float = 0.0,
) -> keras.Model:
    """Builds Table 1's network with less of everything; more depth goes into the last stage, as in Figure 3.

    | layers | here | in the paper |
    |---|---|---|
    | `conv1` | 5x5, stride 2 | 7x7, stride 2, pooling of 3 |
    | `conv2_1` to `conv2_4` | 2x2 | 2x2, 128 filters |
    | `conv3_1` to `conv3_6`, or more | 2x2 | 2x2, 256 filters |
    | `spp` | levels 4, 2 and 1 | 6, 3, 2 and 1 |
    | `fc1`, `fc2` | 2 units per filter of the last convolution, no dropout | 4096 units, dropout of 0.5 |
    | `fc3` | a unit per class | 1000 units |

    There is no normalization and no shortcut. The 2x2 convolutions keep the size of their input: they are padded by
    turns below and to the right, and above and to the left. Padded on the same side by all, as by Keras's `"same"`,
    signals wander out of the image: their mean square would shrink by 10^4 over 22 of them. Pixels from 0 to 255
    come in and are scaled to a mean of about 0 and a variance of about 1.

    Args:
        image_shape: `(height, width, channels)`; height and width may be None.
        num_classes: The number of logits.
        depth: Layers with a kernel, 14 or more.
        filters: Channels of the three stages.
        rectifier: `relu`, `leaky_relu_<slope>`, `prelu` or `prelu_shared`, whose learnt slopes start at 0.25.
        slope_decay: L2 decay of learnt slopes, by the gradient `slope_decay * slope`.

    Returns:
        A network whose weights are those of Keras's own defaults until `start` draws them.
    """
    images = keras.Input(image_shape, name="images")
    x = keras.layers.Rescaling(1 / 64, offset=-2, name="rescaling")(images)
    convolutions = [("conv1", filters[0], 5)]
    convolutions += [(f"conv2_{index}", filters[1], 2) for index in range(1, 5)]
    convolutions += [(f"conv3_{index}", filters[2], 2) for index in range(1, depth - 7)]
    for name, channels, size in convolutions:
        if name == "conv3_1":
            x = keras.layers.MaxPooling2D(2, name=f"pool{int(name[4]) - 1}")(x)
        padding = "same"
        if name[-1] in "24680":  # "same" pads a 2x2 kernel below and to the right
            x = keras.layers.ZeroPadding2D(((1, 0), (1, 0)), name=f"{name}_padding")(x)
            padding = "valid"
        x = keras.layers.Conv2D(channels, size, strides=2 if name == "conv1" else 1, padding=padding, name=name)(x)
        x = _rectifier(rectifier, slope_decay, f"{name}_rectifier")(x)
    x = SpatialPyramidPooling2D((4, 2, 1), name="spp")(x)
    for name in ("fc1", "fc2"):
        x = keras.layers.Dense(2 * filters[2], name=name)(x)
        x = _rectifier(rectifier, slope_decay, f"{name}_rectifier")(x)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="fc3")(x)
    return keras.Model(images, logits, name=f"plain_{depth}")


def _rectifier(rectifier: str, slope_decay: float, name: str) -> keras.layers.Layer:
    if rectifier == "relu":
        return keras.layers.ReLU(name=name)
    if rectifier.startswith("leaky_relu_"):
        return keras.layers.LeakyReLU(float(rectifier.removeprefix("leaky_relu_")), name=name)
    decay = keras.regularizers.L2(slope_decay / 2) if slope_decay else None
    return PReLU(alpha_regularizer=decay, slope_per="layer" if rectifier == "prelu_shared" else "channel", name=name)


def start(
    network: keras.Model, rule: str, seed: int, *, slope: float | None = None, tailor: float | None = None
) -> None:
    """Draws all kernels anew by a rule; biases are 0.

    The last layer, behind which there is no rectifier, starts with the variance 1 / n in all rules but the fixed one.

    Args:
        network: Built by `plain_network`.
        rule: `he_forward` (equation 15 with fan_in), `he_backward` (with fan_out), `xavier` (Gaussian, of variance
            1 / fan_in, as in the paper's footnote 3) or `fixed_0.01`.
        seed: Makes the weights repeatable.
        slope: Where learnt slopes start; None for 0.25.
        tailor: C(0) that the slopes are to give the network, instead.
    """
    if slope is not None:
        for rectifier in slope_layers(network):
            rectifier.alpha.assign(keras.ops.full_like(rectifier.alpha, slope))
    if rule in ("he_forward", "he_backward"):
        initialize(network, "fan_in" if rule == "he_forward" else "fan_out", seed=seed, tailor=tailor)
    seeds = keras.random.SeedGenerator(seed)
    draw: keras.initializers.Initializer = HeNormal(seeds, negative_slope=1.0)
    if rule == "fixed_0.01":
        draw = keras.initializers.RandomNormal(stddev=_STD, seed=seeds)
    for layer in network.layers:
        if hasattr(layer, "kernel") and (rule in ("xavier", "fixed_0.01") or layer.name == "fc3"):
            layer.kernel.assign(draw(layer.kernel.shape))
