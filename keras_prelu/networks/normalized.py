"""A network for small colour images that learns in a few epochs: patches, pooled convolutions, batch normalization."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_prelu.initialization.initializers import HeNormal
from keras_prelu.networks.small import initial_slope, make_rectifier

# Orthonormal functions of 2x2 pixels (mean, vertical, horizontal and diagonal differences) and of red, green and blue
# (luminance, red against blue, green against both).
_HAAR = np.array([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]) / 2
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
# Their standard deviations on small photos, for pixels in -2..2: a row for each of `_HAAR`, a column for each colour.
_STDS = np.array([[3.0, 0.9, 0.4], [0.6, 0.13, 0.07], [0.6, 0.13, 0.07], [0.24, 0.05, 0.03]])


def normalized_network(
    input_shape: tuple[int | None, int | None, int],
    num_classes: int,
    filters: Sequence[int] = (64, 256, 256),
    rectifier: str = "prelu",
    *,
    seed: int | None = None,
) -> keras.Model:
    """A network for colour images of about 32 pixels that needs few epochs.

    The first layer looks at patches of 2x2 pixels. Its kernel starts as Haar wavelets of three opponent colours, each
    with both signs and scaled to a variance near 1 on photos: so the second layer's inputs are almost uncorrelated
    and equally strong, and fine detail is learnt as fast as brightness. Each stage has two 3x3 convolutions, a 2x2
    max pooling behind the first one, and batch normalization before each rectifier. The largest value per channel of
    the last stage goes through one dense layer, whose outputs are divided by 9, so that the loss starts near the
    logarithm of the number of classes.

    Args:
        input_shape: `(height, width, 3)`; height and width may be None.
        num_classes: The number of classes.
        filters: The number of channels per stage.
        rectifier: `"relu"`, `"leaky_relu"`, `"prelu"` (a learnt slope per channel) or `"prelu_shared"` (one per layer).
        seed: Makes the initial weights repeatable.

    Returns:
        A built `keras.Model` from float32 images `(batch, height, width, 3)` in 0..255 to float32 logits
        `(batch, num_classes)`. Its layers are `patches`, `conv<stage>_<index>`, each with a `_rectifier` and the
        convolutions of the stages with a `_normalization`, `pool<stage>`, `largest`, `scores` and `logits`.

    Raises:
        ValueError: Images without three channels or too small for the poolings, no stage, or an unknown rectifier.

    Examples:
        >>> normalized_network((32, 32, 3), num_classes=10).count_params()
        1976258

    Reference:
        Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, for the order of the layers and their widths;
        its first kernel is made from the training images.
    """
    slope = initial_slope(rectifier)
    _check(input_shape, len(filters))
    seeds = keras.random.SeedGenerator(seed)
    images = keras.Input(input_shape, name="images")
    x = keras.layers.Rescaling(1 / 63.75, offset=-2, name="rescaling")(images)
    x = keras.layers.Conv2D(
        24, 2, use_bias=False, data_format="channels_last", kernel_initializer=_opponent_wavelets, name="patches"
    )(x)
    x = make_rectifier(rectifier, name="patches_rectifier")(x)
    for stage, channels in enumerate(filters, start=1):
        for index in (1, 2):
            name = f"conv{stage}_{index}"
            x = keras.layers.Conv2D(
                channels,
                3,
                padding="same",
                use_bias=False,  # the normalization has one
                data_format="channels_last",
                kernel_initializer=HeNormal(seeds, negative_slope=slope),
                name=name,
            )(x)
            if index == 1:
                x = keras.layers.MaxPooling2D(2, data_format="channels_last", name=f"pool{stage}")(x)
            x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_normalization")(x)
            x = make_rectifier(rectifier, name=f"{name}_rectifier")(x)
    x = keras.layers.GlobalMaxPooling2D(data_format="channels_last", name="largest")(x)
    linear = HeNormal(seeds, negative_slope=1.0)
    scores = keras.layers.Dense(num_classes, kernel_initializer=linear, dtype="float32", name="scores")(x)
    logits = keras.layers.Rescaling(1 / 9, dtype="float32", name="logits")(scores)
    return keras.Model(images, logits, name="normalized_network")


@keras.saving.register_keras_serializable(package="keras_prelu", name="opponent_wavelets")
def _opponent_wavelets(shape: Sequence[int], dtype: Any = None) -> Any:
    wavelets = np.einsum("fij,oc,fo->ijcfo", _HAAR, _COLOURS, 1 / _STDS).reshape(*shape[:3], 12)
    return keras.ops.convert_to_tensor(np.concatenate([wavelets, -wavelets], axis=-1), dtype=dtype)


def _check(input_shape: tuple[int | None, int | None, int], stages: int) -> None:
    height, width, channels = input_shape
    if stages < 1 or channels != 3:
        raise ValueError(f"There must be a stage at least and three channels, not {stages} and {channels}.")
    smallest = 2**stages + 1
    if any(size is not None and size < smallest for size in (height, width)):
        raise ValueError(
            f"{stages} stages halve an image {stages} times: it must have at least {smallest}x{smallest} pixels, not "
            f"{height}x{width}."
        )
