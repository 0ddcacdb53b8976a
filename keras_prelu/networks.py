"""Networks of convolutions and learnt rectifiers."""

from collections.abc import Sequence

import keras

from keras_prelu.initializers import HeNormal
from keras_prelu.prelu import PReLU

SLOPE = 0.25  # where the paper starts every slope


def small_network(
    input_shape: tuple[int | None, int | None, int],
    num_classes: int,
    filters: Sequence[int] = (32, 64),
    convolutions: int = 2,
    slope_per: str = "channel",
    seed: int | None = None,
) -> keras.Model:
    """A plain network for images of 8 to 64 pixels: stages of 3x3 convolutions, each followed by a PReLU.

    Each stage but the first begins with a 2x2 max pooling; the last ends in an average over positions and one dense
    layer. Pixels from 0 to 255 come in and are scaled to -1..1 inside, so that nothing is left to do to an image.
    Kernels start with the variance of equation 15 in forward mode, the first of them with that of a linear input.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        num_classes: How many classes there are.
        filters: The channels of each stage.
        convolutions: The convolutions of each stage.
        slope_per: `"channel"` or `"layer"`, as in `PReLU`.
        seed: Makes the initial weights repeatable.

    Returns:
        A built `keras.Model` from float32 images `(batch, height, width, channels)` in 0..255 to logits
        `(batch, num_classes)`.

    Raises:
        ValueError: An image so small that pooling would leave nothing of it.

    Example:
        >>> small_network((8, 8, 1), num_classes=10).count_params()
        65834
    """
    height, width, _ = input_shape
    smallest = 2 ** (len(filters) - 1)
    if min(height or smallest, width or smallest) < smallest:
        raise ValueError(
            f"{len(filters)} stages halve an image {len(filters) - 1} times: it must have at least "
            f"{smallest}x{smallest} pixels, not {height}x{width}."
        )
    images = keras.Input(input_shape, name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(images)
    seeds = keras.random.SeedGenerator(seed)
    slope_before = 1.0  # no rectifier stands before the first layer
    for stage, channels in enumerate(filters, start=1):
        if stage > 1:
            x = keras.layers.MaxPooling2D(2, name=f"pool{stage - 1}")(x)
        for index in range(1, convolutions + 1):
            initializer = HeNormal(seeds, negative_slope=slope_before)
            x = keras.layers.Conv2D(
                channels, 3, padding="same", kernel_initializer=initializer, name=f"conv{stage}_{index}"
            )(x)
            x = PReLU(SLOPE, slope_per=slope_per, name=f"prelu{stage}_{index}")(x)
            slope_before = SLOPE
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=HeNormal(seeds, negative_slope=1.0), dtype="float32", name="logits"
    )(x)
    return keras.Model(images, logits, name="small_network")
