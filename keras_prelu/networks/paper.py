"""The networks of the paper: Table 1's with 14 layers, its relative with 30, and Table 3's A, B, C and VGG-19."""

import itertools
from typing import Any, NamedTuple

import keras

from keras_prelu.initialization.initializers import HeNormal
from keras_prelu.layer.pooling import SpatialPyramidPooling2D
from keras_prelu.networks.small import initial_slope, make_rectifier


class _Convolutions(NamedTuple):
    depth: int
    filters: int
    size: int
    stride: int = 1
    padding: str = "same"

    def output_size(self, size: int) -> int:
        return -(-size // self.stride) if self.padding == "same" else (size - self.size) // self.stride + 1


class _MaxPooling(NamedTuple):
    size: int  # and stride

    def output_size(self, size: int) -> int:
        return size // self.size


class _Architecture(NamedTuple):
    layers: tuple[_Convolutions | _MaxPooling, ...]
    levels: tuple[int, ...]  # of the spatial pyramid; empty: the last map is flattened


def _stages(*stages: _Convolutions) -> tuple[_Convolutions | _MaxPooling, ...]:
    """Stages with a pooling between two."""
    return tuple(layer for stage in stages for layer in (_MaxPooling(2), stage))[1:]


_CONV1_OF_14 = _Convolutions(1, 64, 7, stride=2, padding="valid")  # 224 -> 109, which pool1 makes 36
_CONV1 = _Convolutions(1, 96, 7, stride=2)


def _table_1(convolutions_of_stage_3: int) -> _Architecture:
    stages = _stages(_Convolutions(4, 128, 2), _Convolutions(convolutions_of_stage_3, 256, 2))
    return _Architecture((_CONV1_OF_14, _MaxPooling(3), *stages), levels=(6, 3, 2, 1))


def _table_3(depth: int, *filters: int) -> _Architecture:
    return _Architecture(_stages(_CONV1, *(_Convolutions(depth, each, 3) for each in filters)), levels=(7, 3, 2, 1))


_VGG_19_STAGES = [(2, 64), (2, 128), (4, 256), (4, 512), (4, 512)]

_ARCHITECTURES = {
    "14-layer": _table_1(6),
    "30-layer": _table_1(6 + 16),
    "A": _table_3(5, 256, 512, 512),
    "B": _table_3(6, 256, 512, 512),
    "C": _table_3(6, 384, 768, 896),
    "VGG-19": _Architecture(
        (*_stages(*(_Convolutions(depth, filters, 3) for depth, filters in _VGG_19_STAGES)), _MaxPooling(2)), levels=()
    ),
}


def paper_network(
    architecture: str,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int = 1000,
    rectifier: str = "prelu",
    *,
    dropout: float = 0.5,
    seed: int | None = None,
) -> keras.Model:
    """A network of the paper, with the paper's initialization.

    | architecture | where | convolutions | weights | multiply-adds |
    |---|---|---|---|---|
    | `"14-layer"` | Table 1 | 11 | 75.0 million | 0.95 billion |
    | `"30-layer"` | Figure 3 | 27 | 79.2 million | 2.31 billion |
    | `"VGG-19"` | Table 3 | 16 | 143.7 million | 19.6 billion |
    | `"A"` | Table 3 | 16 | 178.0 million | 19.1 billion |
    | `"B"` | Table 3 | 19 | 183.3 million | 23.2 billion |
    | `"C"` | Table 3 | 19 | 330.6 million | 53.5 billion |

    Three dense layers follow the convolutions in each. The numbers are for 1000 classes and 224 x 224 pixels, without
    the slopes. A rectifier follows every layer except the last. Convolutions start with the standard deviation of
    equation 14 for the rectifier's initial slope, and the dense layers with 0.01, 0.01 and 0.001. These fit images that
    are not scaled: subtract the mean of the training images, and leave pixels within about -128..128.

    Args:
        architecture: One of those above.
        input_shape: `(height, width, channels)`. Height and width may be None except for VGG-19, whose first dense
            layer looks at every position.
        num_classes: The number of classes.
        rectifier: `"relu"`, `"leaky_relu"` (slope 0.01), `"prelu"` (a learnt slope per channel) or `"prelu_shared"`
            (one per layer).
        dropout: The fraction of the first two dense layers' outputs that is dropped in training.
        seed: Makes the initial weights and the dropout repeatable.

    Returns:
        A built `keras.Model` from images `(batch, height, width, channels)` to float32 logits `(batch, num_classes)`.
        Its layers are named as in the paper (`conv1`, `pool1`, `conv2_1`, ..., `spp`, `fc1`, `fc2`, `fc3`), and each
        rectifier after its layer (`conv2_1_rectifier`).

    Raises:
        ValueError: An unknown architecture or rectifier, or an image that is too small.

    Examples:
        >>> network = paper_network("14-layer", (None, None, 3), num_classes=10, rectifier="relu")
        >>> tuple(network.get_layer("fc1").kernel.shape)  # 50 bins of 256 channels
        (12800, 4096)

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, sections 2.1, 2.2 and 3. The 14-layer network is model E of
        He and Sun, "Convolutional Neural Networks at Constrained Time Cost", 2015.
    """
    slope = initial_slope(rectifier)
    layers, levels = _find(architecture)
    _check_size(architecture, input_shape)
    seeds = keras.random.SeedGenerator(seed)
    images = keras.Input(input_shape, name="images")
    x, stage = images, 1
    for layer in layers:
        if isinstance(layer, _MaxPooling):
            x = keras.layers.MaxPooling2D(layer.size, data_format="channels_last", name=f"pool{stage}")(x)
            stage += 1
        else:
            x = _convolve(x, layer, stage, rectifier, HeNormal(seeds, negative_slope=slope, mode="fan_out"))
    if levels:
        x = SpatialPyramidPooling2D(levels, data_format="channels_last", name="spp")(x)
    else:
        x = keras.layers.Flatten(data_format="channels_last", name="flatten")(x)
    for index in (1, 2):
        x = keras.layers.Dense(4096, kernel_initializer=_normal(0.01, seeds), name=f"fc{index}")(x)
        x = make_rectifier(rectifier, name=f"fc{index}_rectifier")(x)
        dropout_seed = None if seed is None else seed + index  # two of one seed would drop the same outputs
        x = keras.layers.Dropout(dropout, seed=dropout_seed, name=f"fc{index}_dropout")(x)
    logits = keras.layers.Dense(num_classes, kernel_initializer=_normal(0.001, seeds), dtype="float32", name="fc3")(x)
    return keras.Model(images, logits, name=architecture)


def _convolve(x: Any, layer: _Convolutions, stage: int, rectifier: str, initializer: HeNormal) -> Any:
    for index in range(1, layer.depth + 1):
        name = f"conv{stage}_{index}" if layer.depth > 1 else f"conv{stage}"
        x = keras.layers.Conv2D(
            layer.filters,
            layer.size,
            strides=layer.stride,
            padding=layer.padding,
            data_format="channels_last",
            kernel_initializer=initializer,
            name=name,
        )(x)
        x = make_rectifier(rectifier, name=f"{name}_rectifier")(x)
    return x


def _normal(deviation: float, seeds: keras.random.SeedGenerator) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=deviation, seed=seeds)


def _find(architecture: str) -> _Architecture:
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"architecture is {architecture!r}, but must be one of {', '.join(_ARCHITECTURES)}.")
    return _ARCHITECTURES[architecture]


def _check_size(architecture: str, input_shape: tuple[int | None, int | None, int]) -> None:
    height, width, _ = input_shape
    layers, levels = _ARCHITECTURES[architecture]
    if not levels and None in (height, width):
        raise ValueError(f"{architecture} has no spatial pyramid: it needs a height and a width, not {height}x{width}.")
    smallest = next(size for size in itertools.count(1) if _map_size(layers, size) >= max(levels, default=1))
    if any(size is not None and size < smallest for size in (height, width)):
        raise ValueError(
            f"{architecture} needs images of at least {smallest}x{smallest} pixels, not {height}x{width}; "
            "small_network takes smaller ones."
        )


def _map_size(layers: tuple[_Convolutions | _MaxPooling, ...], size: int) -> int:
    """The last map's size along one axis, for an image of `size` pixels."""
    for layer in layers:
        size = layer.output_size(size)
    return size
