"""Where each kernel of a model stands: the signal before it, the gradient after it, and its part in residual sums."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from keras_prelu.walk.fans import fans
from keras_prelu.walk.graph import Call, Graph, trace
from keras_prelu.walk.kernels import AsDrawn
from keras_prelu.walk.residuals import Scales, residual_scales
from keras_prelu.walk.rule import Setting
from keras_prelu.walk.rules import has_kernel
from keras_prelu.walk.signal import Obstacle, Signal
from keras_prelu.walk.walk import Walk, mean_over_calls, walk


@dataclass(frozen=True, kw_only=True)
class KernelPlace:
    """A kernel with its fans and what stands around it.

    Signals are counted in the unit in which every kernel's outputs have variance 1, before their activation, and so
    have the gradients with respect to every kernel's inputs. They are those at one position: padding, strides and
    pooling are left out, as in the paper, since what they do depends on how alike neighbouring values are.

    Attributes:
        path: The path of the layer in the model.
        layer: The layer.
        kernel: The variable.
        fan_in: How many inputs an output unit sums.
        fan_out: How many outputs an input unit feeds.
        before: The signal at the layer's inputs.
        after: The gradient that arrives at the layer's outputs, before their activation.
        forward_scale: Factor on the standard deviation in forward mode: below 1 at the end of a residual branch.
        backward_scale: The same in backward mode, at the beginning of one.
    """

    path: str
    layer: keras.Layer
    kernel: keras.Variable
    fan_in: float
    fan_out: float
    before: Signal | Obstacle
    after: Signal | Obstacle
    forward_scale: float = 1.0
    backward_scale: float = 1.0

    @property
    def slope_before(self) -> float | None:
        """The negative slope of the rectifier before the layer, 1 where there is none; None where it is not one."""
        return self.before.negative_slope if isinstance(self.before, Signal) else None

    @property
    def slope_after(self) -> float | None:
        """The negative slope of the rectifier after the layer, 1 where there is none; None where it is not one."""
        return self.after.negative_slope if isinstance(self.after, Signal) else None


def kernel_places(model: keras.Model, input_second_moment: float = 1.0) -> list[KernelPlace]:
    """Finds each kernel of a model and the activations around it.

    Poolings, dropout, reshaping and the like let a rectifier's effect through; a normalization sets the variance to 1
    and lets what follows see no rectifier before it. A sum adds the variances and the means of its terms, and what
    follows sees no rectifier before it; a product multiplies second moments; a concatenation averages them. Several
    consumers of one tensor add up the second moments of their gradients. A layer that is called several times has the
    mean over its calls. Inside attention, what lies between the projections counts as linear. An activation between a
    layer and the model's output, as a softmax, belongs to the loss.

    Args:
        model: A built functional or Sequential model; models in it are opened.
        input_second_moment: The mean square of what the first layers see.

    Returns:
        A row for each kernel, each once, in the order of the calls. The signal next to a layer that is not known is an
        `Obstacle`, as it is for kernels inside such a layer.

    Raises:
        ValueError: A model without a graph: not built, or subclassed.

    Examples:
        >>> import keras
        >>> model = keras.Sequential([
        ...     keras.Input((32, 32, 3)),
        ...     keras.layers.Conv2D(64, 3, activation="relu", name="conv1"),
        ...     keras.layers.MaxPooling2D(),
        ...     keras.layers.Conv2D(64, 3, name="conv2"),
        ...     keras.layers.LeakyReLU(0.5),
        ...     keras.layers.Flatten(),
        ...     keras.layers.Dense(10, name="logits"),
        ... ])
        >>> for place in kernel_places(model):
        ...     print(place.path, place.fan_in, place.fan_out, place.slope_before, place.slope_after)
        conv1 27 576 1.0 0.0
        conv2 576 576 0.0 0.5
        logits 10816 10 0.5 1.0
    """
    graph = trace(model)
    scales = residual_scales(graph)
    walked = walk_at_one_position(graph, scales, input_second_moment)
    calls: dict[int, list[Call]] = defaultdict(list)
    for call in walked.graph.calls:
        if isinstance(call.operation, keras.Layer):
            calls[id(call.operation)].append(call)
    places: dict[int, KernelPlace] = {}
    for of_layer in calls.values():
        for place in _places(of_layer, walked, scales):
            places.setdefault(id(place.kernel), place)
    return list(places.values())


def walk_at_one_position(graph: Graph, scales: Scales, input_second_moment: float = 1.0) -> Walk:
    """The walk that `initialize` reads: with the kernels that will be drawn, without positions and dropout."""
    inputs = [Signal.noise(input_second_moment) for _ in graph.inputs]
    return walk(graph, AsDrawn(scales), inputs, preprocessed=True, setting=Setting(training=False))


def _places(calls: list[Call], walked: Walk, scales: Scales) -> Iterator[KernelPlace]:
    """The kernels of one layer: the last stands at its output, the others at its inputs, an only one at both."""
    call = calls[0]
    rows = fans(call.operation)
    if not rows:
        return
    linear, unknown = Signal.noise(), Obstacle(call.path, type(call.operation).__name__)
    known = has_kernel(call)
    before = mean_over_calls([walked.before[each] for each in calls]) if known else unknown
    after = mean_over_calls([walked.after[each] for each in calls]) if known else unknown
    for row in rows:
        last = row is rows[-1]
        first = len(rows) == 1 or not last
        yield KernelPlace(
            path=call.path if row.layer is call.operation else f"{call.path}/{row.layer.name}",
            layer=row.layer,
            kernel=row.kernel,
            fan_in=row.fan_in,
            fan_out=row.fan_out,
            before=before if first or not known else linear,
            after=after if last or not known else linear,
            forward_scale=scales.forward.get(call.outputs[0], 1.0) if last else 1.0,
            backward_scale=scales.backward.get(call.outputs[0], 1.0) if first else 1.0,
        )
