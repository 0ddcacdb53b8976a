"""The fans of a kernel: the number of inputs that an output sums, and of outputs that an input feeds."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prelu.keras_internals import flatten_layers, holds_plain_kernels

KERNELS = ("depthwise", "transposed", "embedding")

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
_CELLS = (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell)

# Layers that are linear in their input, apart from their `activation`: their fans decide the size of their output.
LINEAR_LAYERS = (
    *(layers.Dense, layers.EinsumDense, layers.Embedding),
    *(*_CONVOLUTIONS, *DEPTHWISE, *_SEPARABLE, *TRANSPOSED, *ATTENTION),
)


def compute_fans(
    shape: Sequence[int],
    kernel: str | None = None,
    *,
    groups: int = 1,
    strides: int | Sequence[int] = 1,
) -> tuple[float, float]:
    """Computes the fan_in and fan_out of a kernel of this shape.

    | kernel | shape | fan_in | fan_out |
    |---|---|---|---|
    | None, rank 2 | `(inputs, outputs)` | inputs | outputs |
    | None, convolution | `(*size, inputs / groups, outputs)` | size * inputs / groups | size * outputs / groups |
    | `"depthwise"` | `(*size, inputs, multiplier)` | size | size * multiplier |
    | `"transposed"` | `(*size, outputs, inputs)` | size * inputs / strides | size * outputs |
    | `"embedding"` | `(tokens, outputs)` | 1 | outputs |

    Here, size and strides are the products over the spatial axes. A transposed convolution puts strides - 1 zeros
    between its inputs, so an output sums over only one of every `strides` positions of the kernel. A convolution's
    fan_out is the paper's k^2 d for any strides: like a pooling, strides add one factor per stage, not one per layer.

    Args:
        shape: The kernel's shape.
        kernel: The kind of kernel, as in the table; the shape alone does not determine it.
        groups: The number of groups of a convolution.
        strides: The strides of a transposed convolution, one for all axes or one per axis.

    Returns:
        `(fan_in, fan_out)`; whole numbers except for some transposed convolutions.

    Raises:
        ValueError: A shape with a fan of 0 or of the wrong rank; an unknown kernel; groups or strides that do not fit.

    Examples:
        >>> compute_fans((3, 3, 64, 128))
        (576, 1152)
        >>> compute_fans((4, 4, 128, 64), "transposed", strides=2)
        (256.0, 2048)

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 2.2.
    """
    shape = tuple(shape)
    _check(shape, kernel, groups, strides)
    if len(shape) < 2:  # no kernel; Keras counts so too, and a bias may be drawn
        fans: tuple[float, float] = (math.prod(shape), math.prod(shape))
    elif kernel == "embedding":
        fans = (1, shape[1])
    else:
        *sizes, last_but_one, last = shape
        size = math.prod(sizes)
        if kernel == "depthwise":
            fans = (size, size * last)
        elif kernel == "transposed":
            fans = (size * last / _volume(strides, len(sizes)), size * last_but_one)
        else:
            fans = (size * last_but_one, size * last // groups)
    return _positive(fans, shape)


def fans_over_axes(shape: Sequence[int], input_axes: Sequence[int], output_axes: Sequence[int]) -> tuple[float, float]:
    """Computes the fans of a kernel whose input and output axes are known, as those of `keras.layers.EinsumDense`.

    Args:
        shape: The kernel's shape.
        input_axes: The axes that are summed over.
        output_axes: The axes that the outputs have and the inputs do not.

    Returns:
        `(fan_in, fan_out)`.

    Raises:
        ValueError: A fan of 0.

    Examples:
        >>> fans_over_axes((512, 8, 64), input_axes=[0], output_axes=[1, 2])  # a query projection of 8 heads
        (512, 512)
    """
    fans = (math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes))
    return _positive(fans, tuple(shape))


@dataclass(frozen=True)
class KernelFans:
    """A kernel and its fans.

    Attributes:
        layer: The layer that holds it.
        kernel: The variable.
        fan_in: The number of inputs that an output unit sums.
        fan_out: The number of outputs that an input unit feeds.
    """

    layer: keras.Layer
    kernel: keras.Variable
    fan_in: float
    fan_out: float


def fans(layer: keras.Layer) -> list[KernelFans]:
    """Lists the kernels of a built Keras layer, and of the layers inside it, with their fans.

    It knows Dense, EinsumDense, convolutions of all kinds (grouped, depthwise, separable, transposed), Embedding, the
    cells of SimpleRNN, GRU and LSTM, and therefore attention layers and wrappers, which hold such layers.

    Args:
        layer: A layer, or a model.

    Returns:
        One row per kernel, in the order in which the layer uses them. Empty for a layer without a kernel or of a kind
        that is not listed above.

    Raises:
        ValueError: A layer that is not built.

    Examples:
        >>> import keras
        >>> layer = keras.layers.SeparableConv2D(128, 3)
        >>> layer.build((None, 32, 32, 64))
        >>> [(row.kernel.name, row.fan_in, row.fan_out) for row in fans(layer)]
        [('depthwise_kernel', 9, 9), ('pointwise_kernel', 64, 128)]
    """
    if not layer.built:
        raise ValueError(f"Layer {layer.name!r} is not built: its kernels have no shape yet. Call it, or its build.")
    rows = [row for each in (layer, *flatten_layers(layer)) if each.built for row in _own_fans(each)]
    return list({id(row.kernel): row for row in rows}.values())


def layer_kernels(layer: keras.Layer) -> list[keras.Variable]:
    """Lists a layer's own kernels, without those of layers inside it.

    Args:
        layer: Any layer. A layer that is not built has no kernels yet.

    Returns:
        The kernels whose fans are known. A recurrent cell's are left out: its signal runs through time, not depth.

    Examples:
        >>> dense = keras.layers.Dense(2, name="dense")
        >>> model = keras.Sequential([keras.Input((3,)), dense])
        >>> [len(layer_kernels(layer)) for layer in (model, dense)]
        [0, 1]
    """
    if not layer.built or hasattr(layer, "recurrent_kernel"):
        return []
    return [row.kernel for row in fans(layer) if row.layer is layer]


def _own_fans(layer: Any) -> list[KernelFans]:
    if not holds_plain_kernels(layer):
        return []
    return [KernelFans(layer, kernel, *sizes) for kernel, sizes in _kernels(layer)]


def _kernels(layer: Any) -> list[tuple[keras.Variable, tuple[float, float]]]:
    if isinstance(layer, layers.EinsumDense):
        return [(layer.kernel, fans_over_axes(layer.kernel.shape, *_einsum_axes(layer.equation)))]
    if isinstance(layer, layers.Dense):
        return [_kernel(layer.kernel)]
    if isinstance(layer, _CONVOLUTIONS):
        return [_kernel(layer.kernel, groups=layer.groups)]
    if isinstance(layer, DEPTHWISE):
        return [_kernel(layer.kernel, "depthwise")]
    if isinstance(layer, _SEPARABLE):
        return [_kernel(layer.depthwise_kernel, "depthwise"), _kernel(layer.pointwise_kernel)]
    if isinstance(layer, TRANSPOSED):
        return [_kernel(layer.kernel, "transposed", strides=layer.strides)]
    # A reversible embedding is a projection as well, with other fans: it has no one answer.
    if isinstance(layer, layers.Embedding) and not isinstance(layer, layers.ReversibleEmbedding):
        return [_kernel(layer.embeddings, "embedding")]
    if isinstance(layer, _CELLS):
        return [_kernel(layer.kernel), _kernel(layer.recurrent_kernel)]
    return []


def _kernel(
    kernel: keras.Variable, kind: str | None = None, **keywords: Any
) -> tuple[keras.Variable, tuple[float, float]]:
    return kernel, compute_fans(kernel.shape, kind, **keywords)


def _einsum_axes(equation: str) -> tuple[list[int], list[int]]:
    """The kernel's axes that are summed over, and those that are new in the output; an axis in both is neither."""
    inputs, kernel, outputs = re.split(",|->", equation.replace(" ", ""))
    summed = [axis for axis, letter in enumerate(kernel) if letter not in outputs]
    new = [axis for axis, letter in enumerate(kernel) if letter not in inputs]
    return summed, new


def _check(shape: tuple[int, ...], kernel: str | None, groups: int, strides: int | Sequence[int]) -> None:
    if kernel not in (None, *KERNELS):
        raise ValueError(f"kernel is {kernel!r}, but must be None or one of {', '.join(map(repr, KERNELS))}.")
    if kernel == "embedding" and len(shape) != 2:
        raise ValueError(f"An embedding has shape (tokens, outputs), not {shape}.")
    if kernel in ("depthwise", "transposed") and len(shape) < 3:
        raise ValueError(f"A {kernel} kernel has at least one spatial axis and two of channels; {shape} has not.")
    if groups != 1 and (kernel is not None or len(shape) < 3 or groups < 1 or shape[-1] % groups):
        raise ValueError(
            f"groups is {groups}, but must be 1, or divide the outputs of a plain convolution: kernel is {kernel!r}, "
            f"its shape {shape}."
        )
    if strides != 1 and kernel != "transposed":
        raise ValueError(f"strides is {strides}, but counts in a transposed kernel only: kernel is {kernel!r}.")
    if kernel == "transposed" and _volume(strides, len(shape) - 2) < 1:
        raise ValueError(f"strides is {strides}, but must be positive.")


def _volume(strides: int | Sequence[int], axes: int) -> int:
    if isinstance(strides, int):
        return strides**axes
    if len(strides) != axes:
        raise ValueError(f"strides is {tuple(strides)}, but the kernel has {axes} spatial axes.")
    return math.prod(strides)


def _positive(fans: tuple[float, float], shape: tuple[int, ...]) -> tuple[float, float]:
    if min(fans) <= 0:
        raise ValueError(f"A kernel of shape {shape} has fans {fans}: no variance keeps a signal through it.")
    return fans


def mean_square(variable: Any) -> float:
    """E[w^2] of a kernel."""
    values = np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))
    return float(np.mean(np.square(values, dtype="float64")))
