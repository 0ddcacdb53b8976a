"""The parametric rectifier: the function, its gradient and the Keras layer."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def prelu(x: Any, alpha: Any) -> Any:
    """Passes positive values through and scales the others by a slope.

    $$f(x) = \\max(0, x) + \\alpha \\min(0, x)$$

    Unlike `keras.layers.PReLU`, whose gradient is 0 at x = 0, this one has the paper's: x = 0 belongs to the
    branch of the slope, so that df/dx = alpha there.

    Args:
        x: Tensor of any shape.
        alpha: The slope: a number, or a tensor of x's dtype that broadcasts against x without enlarging it.

    Returns:
        Tensor of x's shape and dtype.

    Example:
        >>> import numpy as np
        >>> np.asarray(prelu(np.array([-2.0, 0.0, 3.0], "float32"), 0.25))
        array([-0.5,  0. ,  3. ], dtype=float32)

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, equations 1 to 3.
    """
    x = ops.convert_to_tensor(x)
    return _prelu(x, ops.cast(alpha, x.dtype))


@ops.custom_gradient
def _prelu(x: Any, alpha: Any) -> Any:
    # The one form that TFLite fuses to a single PRELU; max(0, x) + alpha * min(0, x) it does not.
    y = ops.relu(x) + (-alpha) * ops.relu(-x)

    def gradient(*args: Any, upstream: Any = None) -> tuple[Any, Any]:
        if upstream is None:  # TensorFlow and JAX pass it by position, PyTorch by name
            (upstream,) = args
        dx = ops.where(x > 0, upstream, alpha * upstream)
        dalpha = _sum_to_shape(upstream * ops.minimum(x, 0), ops.shape(alpha))
        return dx, dalpha

    return y, gradient


def _sum_to_shape(values: Any, shape: Sequence[int]) -> Any:
    """Sums over the axes along which an array of this shape was broadcast (equation 2's sum over positions)."""
    extra = len(values.shape) - len(shape)
    ones = [extra + axis for axis, size in enumerate(shape) if size == 1]
    return ops.reshape(ops.sum(values, axis=(*range(extra), *ones)), shape)


@keras.saving.register_keras_serializable(package="keras_prelu")
class PReLU(keras.layers.Layer):
    """Parametric ReLU: a rectifier that learns its slope for negative inputs.

    $$f(x) = \\max(0, x) + \\alpha \\min(0, x)$$

    The slope has one value per channel by default, starts at 0.25 as throughout the paper, and fits any height
    and width, known or not. Leave it out of weight decay, which would pull it to 0 and so towards a plain ReLU.

    Args:
        alpha_initializer: Where the slopes start: a number, or any Keras initializer.
        slope_per: What has a slope of its own: `"channel"`, or `"layer"` for a single slope.
        data_format: `"channels_last"` or `"channels_first"`: which axis holds the channels. Default: Keras's own
            `image_data_format`.
        alpha_regularizer: Regularizer of the slopes.
        alpha_constraint: Constraint on the slopes. The paper has none.
        **kwargs: `name`, `dtype` and what else `keras.layers.Layer` takes.

    Input shape:
        `(batch, ..., channels)`, or `(batch, channels, ...)` with `data_format="channels_first"`.

    Output shape:
        The input's.

    Attributes:
        alpha: The slopes, float32 under mixed precision: shape `(1, ..., channels)` without the batch axis, in the
            channels' place, or all ones for a slope per layer.

    Raises:
        ValueError: An argument that is not one of those above, or an input without a known number of channels.

    Example:
        >>> import numpy as np
        >>> layer = PReLU()
        >>> np.asarray(layer(np.array([[-2.0, 3.0], [4.0, -1.0]], "float32")))
        array([[-0.5 ,  3.  ],
               [ 4.  , -0.25]], dtype=float32)

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 2.1 (https://arxiv.org/abs/1502.01852).
    """

    def __init__(
        self,
        alpha_initializer: Any = 0.25,
        slope_per: str = "channel",
        data_format: str | None = None,
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if slope_per not in ("channel", "layer"):
            raise ValueError(f'slope_per is {slope_per!r}, but must be "channel" or "layer".')
        if isinstance(alpha_initializer, int | float):
            alpha_initializer = keras.initializers.Constant(alpha_initializer)
        self.alpha_initializer = keras.initializers.get(alpha_initializer)
        self.slope_per = slope_per
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f'data_format is {data_format!r}, but must be "channels_last" or "channels_first".')
        self.alpha_regularizer = keras.regularizers.get(alpha_regularizer)
        self.alpha_constraint = keras.constraints.get(alpha_constraint)
        self.supports_masking = True

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the slopes once the number of channels is known."""
        rank = len(input_shape)
        if rank < 2:
            raise ValueError(f"PReLU takes (batch, ..., channels) or (batch, channels, ...), not {input_shape}.")
        channel_axis = 1 if self.data_format == "channels_first" else rank - 1
        channels = input_shape[channel_axis] if self.slope_per == "channel" else 1
        if channels is None:
            raise ValueError(
                f"The number of channels, axis {channel_axis} of the input shape {tuple(input_shape)}, must be known "
                'to have a slope per channel; slope_per="layer" does without.'
            )
        shape = [1] * (rank - 1)
        shape[channel_axis - 1] = channels
        self.alpha = self.add_weight(
            shape=tuple(shape),
            name="alpha",
            initializer=self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
        )
        axes = {channel_axis: channels} if self.slope_per == "channel" else {}
        self.input_spec = keras.layers.InputSpec(ndim=rank, axes=axes)

    def call(self, inputs: Any) -> Any:
        """Applies the rectifier elementwise."""
        return prelu(inputs, self.alpha)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "alpha_initializer": keras.initializers.serialize(self.alpha_initializer),
            "slope_per": self.slope_per,
            "data_format": self.data_format,
            "alpha_regularizer": keras.regularizers.serialize(self.alpha_regularizer),
            "alpha_constraint": keras.constraints.serialize(self.alpha_constraint),
        }
