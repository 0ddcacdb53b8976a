"""The Keras layer."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_prelu.layer.functional import prelu

_SLOPE_PER = ("channel", "group", "layer", "element")


@keras.saving.register_keras_serializable(package="keras_prelu")
class PReLU(keras.layers.Layer):
    """Parametric ReLU: a rectifier that learns its slope for negative inputs.

    $$f(x) = \\max(0, x) + \\alpha \\min(0, x)$$

    The slope has one value per channel by default, starts at 0.25 as throughout the paper, and fits any height
    and width, known or not. Leave it out of weight decay, which would pull it to 0 and so towards a plain ReLU:
    `exclude_slopes_from_weight_decay` does.

    The arguments are those of `keras.layers.PReLU`, in its order, and more. Two defaults differ: the slope starts at
    0.25 instead of 0, and `shared_axes=None` means a slope per channel instead of one per element, for which there is
    `slope_per="element"`. Negative `shared_axes` count from the end; in Keras they share another axis than named.

    Args:
        alpha_initializer: Where the slopes start: a number, or any Keras initializer.
        alpha_regularizer: Regularizer of the slopes.
        alpha_constraint: Constraint on the slopes. The paper has none.
        shared_axes: The axes along which slopes are shared, instead of `slope_per`: `[1, 2]` or `[-3, -2]` for a
            slope per channel of images, `[]` for one per element.
        slope_per: What has a slope of its own: `"channel"` (the default), `"group"` of neighbouring channels,
            `"layer"`, or `"element"`, that is each position of each channel.
        groups: How many groups of equally many channels there are, with `slope_per="group"`.
        data_format: `"channels_last"` or `"channels_first"`: which axis holds the channels. Default: Keras's own
            `image_data_format`.
        **kwargs: `name`, `dtype` and what else `keras.layers.Layer` takes.

    Input shape:
        `(batch, ..., channels)`, or `(batch, channels, ...)` with `data_format="channels_first"`. Masks pass through.

    Output shape:
        The input's.

    Attributes:
        alpha: The slopes, float32 under mixed precision: the input's shape without the batch axis, with 1 for each
            axis that shares them and the number of groups for one of grouped channels. None before the layer is built.

    Raises:
        ValueError: Arguments that are not among those above or contradict each other, shared axes that the input does
            not have, the batch axis among them, or an input whose size is unknown along an axis with slopes.

    Examples:
        >>> import numpy as np
        >>> layer = PReLU()
        >>> np.asarray(layer(np.array([[-2.0, 3.0], [4.0, -1.0]], "float32")))
        array([[-0.5 ,  3.  ],
               [ 4.  , -0.25]], dtype=float32)
        >>> PReLU(shared_axes=[-3, -2])(np.zeros((1, 8, 8, 16), "float32")).shape[1:]
        TensorShape([8, 8, 16])

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, section 2.1 (https://arxiv.org/abs/1502.01852).
    """

    def __init__(
        self,
        alpha_initializer: Any = 0.25,
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: int | Iterable[int] | None = None,
        *,
        slope_per: str | None = None,
        groups: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(alpha_initializer, int | float):
            alpha_initializer = keras.initializers.Constant(alpha_initializer)
        self.alpha_initializer = keras.initializers.get(alpha_initializer)
        self.alpha_regularizer = keras.regularizers.get(alpha_regularizer)
        self.alpha_constraint = keras.constraints.get(alpha_constraint)
        self.shared_axes = [shared_axes] if isinstance(shared_axes, int) else shared_axes and list(shared_axes)
        self.slope_per = "channel" if slope_per is None and shared_axes is None else slope_per
        self.groups = groups
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        self._check_arguments()
        self.supports_masking = True
        self.alpha: Any = None

    def _check_arguments(self) -> None:
        if self.slope_per is not None and self.shared_axes is not None:
            raise ValueError(
                f"shared_axes={self.shared_axes} and slope_per={self.slope_per!r} both say where slopes are shared: "
                "give one of them."
            )
        if self.shared_axes is None and self.slope_per not in _SLOPE_PER:
            raise ValueError(f"slope_per is {self.slope_per!r}, but must be one of {', '.join(map(repr, _SLOPE_PER))}.")
        if (self.slope_per == "group") != (self.groups is not None):
            raise ValueError(f'slope_per="group" and groups go together, not {self.slope_per!r} and {self.groups}.')
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"groups is {self.groups}, but must be 1 or more.")
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f'data_format is {self.data_format!r}, but must be "channels_last" or "channels_first".')

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the slopes once the input's shape is known."""
        rank = len(input_shape)
        if rank < 2:
            raise ValueError(f"PReLU takes (batch, ..., channels) or (batch, channels, ...), not {tuple(input_shape)}.")
        shared = self._shared_axes(rank)
        axes = {axis: input_shape[axis] for axis in range(1, rank) if axis not in shared}
        if None in axes.values():
            raise ValueError(
                f"The input shape {tuple(input_shape)} is unknown along axes that have slopes of their own "
                f'({", ".join(map(str, axes))}). Share slopes along unknown axes: by slope_per="channel", '
                'slope_per="layer" or shared_axes.'
            )
        shape = [axes.get(axis, 1) for axis in range(1, rank)]
        if self.groups is not None:
            shape[self._channel_axis(rank) - 1] = self._groups_of(axes[self._channel_axis(rank)])
        self.alpha = self.add_weight(
            shape=tuple(shape),
            name="alpha",
            initializer=self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
            autocast=False,  # its gradient is a sum over whole maps, which float16 can't hold
        )
        self.input_spec = keras.layers.InputSpec(ndim=rank, axes=axes)

    def _channel_axis(self, rank: int) -> int:
        return 1 if self.data_format == "channels_first" else rank - 1

    def _shared_axes(self, rank: int) -> set[int]:
        if self.shared_axes is None:
            own = {"layer": set(), "element": set(range(1, rank))}.get(str(self.slope_per), {self._channel_axis(rank)})
            return set(range(1, rank)) - own
        shared = {axis + rank if axis < 0 else axis for axis in self.shared_axes}
        if not all(0 < axis < rank for axis in shared):
            raise ValueError(
                f"shared_axes={self.shared_axes} does not fit an input of {rank} axes: each must be one of 1 to "
                f"{rank - 1}, or of -1 to {1 - rank} counted from the end. Axis 0, the batch, shares slopes anyway."
            )
        return shared

    def _groups_of(self, channels: int | None) -> int:
        if self.groups is None or channels is None or channels % self.groups:
            raise ValueError(f"{channels} channels can't be cut into {self.groups} groups of the same size.")
        return self.groups

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Applies the rectifier elementwise."""
        alpha = self.alpha
        if self.groups is not None:
            axis = self._channel_axis(len(inputs.shape))
            alpha = ops.repeat(alpha, inputs.shape[axis] // self.groups, axis=axis - 1)
        return prelu(inputs, alpha, training=bool(training))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The input's shape."""
        return input_shape

    @classmethod
    def from_keras(
        cls, layer: keras.layers.PReLU, slope_per: str | None = None, data_format: str | None = None
    ) -> Self:
        """Takes a `keras.layers.PReLU` over: its name, its slopes where it is built, and all its settings.

        Args:
            layer: The Keras layer, which is not changed.
            slope_per: None keeps its slopes. `"channel"` and `"layer"` take their average instead, for
                example over the positions of a layer with a slope per pixel.
            data_format: Which axis holds the channels, as in the constructor.

        Returns:
            A layer of this class, built if the other is. The slopes that an already built layer shares are read off
            its weights, since Keras misreads negative `shared_axes`.

        Raises:
            ValueError: Another kind of layer, or a `slope_per` other than those.
        """
        if not isinstance(layer, keras.layers.PReLU):
            raise ValueError(f"from_keras takes a keras.layers.PReLU, not {type(layer).__name__}.")
        if slope_per not in (None, "channel", "layer"):
            raise ValueError(f'slope_per is {slope_per!r}, but must be None, "channel" or "layer" to take slopes over.')
        shared_axes = layer.shared_axes or []
        if layer.built:
            shared_axes = [axis for axis, size in enumerate(layer.alpha.shape, start=1) if size == 1]
        new = cls(
            layer.alpha_initializer,
            layer.alpha_regularizer,
            layer.alpha_constraint,
            shared_axes=shared_axes if slope_per is None else None,
            slope_per=slope_per,
            data_format=data_format,
            name=layer.name,
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
        )
        if layer.built:
            alpha = ops.convert_to_numpy(layer.alpha)
            new.build((None, *alpha.shape))
            averaged = tuple(axis for axis, size in enumerate(new.alpha.shape) if size == 1)
            new.alpha.assign(alpha.mean(axis=averaged, keepdims=True))
        return new

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "alpha_initializer": keras.initializers.serialize(self.alpha_initializer),
            "alpha_regularizer": keras.regularizers.serialize(self.alpha_regularizer),
            "alpha_constraint": keras.constraints.serialize(self.alpha_constraint),
            "shared_axes": self.shared_axes,
            "slope_per": self.slope_per,
            "groups": self.groups,
            "data_format": self.data_format,
        }
