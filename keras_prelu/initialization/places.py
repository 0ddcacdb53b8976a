"""Where each kernel of a model stands: the rectifier before it, the one after it, and its part in residual sums."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import keras
from keras import layers

from keras_prelu.initialization.fans import fans
from keras_prelu.initialization.graph import Call, Graph, trace
from keras_prelu.initialization.moments import (
    Obstacle,
    Signal,
    activated,
    backward,
    forward,
    has_kernel,
    mean_of,
    sum_of,
)
from keras_prelu.initialization.residuals import Scales, residual_scales

_LINEAR = Signal()


@dataclass(frozen=True, kw_only=True)
class KernelPlace:
    """A kernel with its fans and what stands around it.

    Signals are counted in the unit in which every kernel's outputs have variance 1, before their activation, and so
    have the gradients with respect to every kernel's inputs.

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
        """The negative slope of the rectifier before the layer, 1 where there is none; None where it is not known."""
        return self.before.negative_slope if isinstance(self.before, Signal) else None

    @property
    def slope_after(self) -> float | None:
        """The negative slope of the rectifier after the layer, 1 where there is none; None where it is not known."""
        return self.after.negative_slope if isinstance(self.after, Signal) else None


def kernel_places(model: keras.Model, input_second_moment: float = 1.0) -> list[KernelPlace]:
    """Finds each kernel of a model and the rectifiers around it.

    Poolings, dropout, reshaping and the like let a rectifier's effect through; a normalization sets the variance to 1
    and lets what follows see no rectifier before it. A sum adds the variances and the means of its terms, and what
    follows sees no rectifier before it; a concatenation averages second moments. Several consumers of one tensor add up
    the second moments of their gradients. A layer that is called several times has the mean over its calls. Inside
    attention, what lies between the projections counts as linear. An activation between a layer and the model's output,
    as a softmax, belongs to the loss.

    Args:
        model: A built functional or Sequential model; models in it are opened.
        input_second_moment: The mean square of what the first layers see.

    Returns:
        A row for each kernel, each once, in the order of the calls. The signal next to a layer that is neither linear,
        a rectifier, nor one of those above is an `Obstacle`, as it is for kernels inside such a layer.

    Raises:
        ValueError: A model without a graph: not built, or subclassed.

    Example:
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
    before = _walk_forward(graph, scales, Signal(variance=input_second_moment))
    after = _walk_backward(graph, scales)
    calls: dict[int, list[Call]] = defaultdict(list)
    for call in graph.calls:
        if isinstance(call.operation, keras.Layer):
            calls[id(call.operation)].append(call)
    places: dict[int, KernelPlace] = {}
    for of_layer in calls.values():
        signal, gradient = (mean_of([at[call] for call in of_layer]) for at in (before, after))
        for place in _places(of_layer[0], signal, gradient, scales):
            places.setdefault(id(place.kernel), place)
    return list(places.values())


def _places(call: Call, before: Signal | Obstacle, after: Signal | Obstacle, scales: Scales) -> Iterator[KernelPlace]:
    """The kernels of one layer: the last stands at its output, the others at its inputs, an only one at both."""
    unknown = None if has_kernel(call) else Obstacle(call.path, type(call.operation).__name__)
    rows = fans(call.operation)
    for row in rows:
        last = row is rows[-1]
        first = len(rows) == 1 or not last
        yield KernelPlace(
            path=call.path if row.layer is call.operation else f"{call.path}/{row.layer.name}",
            layer=row.layer,
            kernel=row.kernel,
            fan_in=row.fan_in,
            fan_out=row.fan_out,
            before=unknown or (before if first else _LINEAR),
            after=unknown or (after if last else _LINEAR),
            forward_scale=scales.forward.get(call.outputs[0], 1.0) if last else 1.0,
            backward_scale=scales.backward.get(call.outputs[0], 1.0) if first else 1.0,
        )


def _walk_forward(graph: Graph, scales: Scales, data: Signal) -> dict[Call, Signal | Obstacle]:
    """The signal at each call's inputs."""
    signals: dict[int, Signal | Obstacle] = dict.fromkeys(graph.inputs, data)
    before = {}
    for call in graph.calls:
        arriving = [signals[tensor] for tensor in call.inputs]
        # an embedding multiplies one-hot vectors, whatever the mean square of their indices
        before[call] = _LINEAR if isinstance(call.operation, layers.Embedding) else mean_of(arriving)
        if has_kernel(call):
            linear = Signal(variance=scales.forward.get(call.outputs[0], 1.0) ** 2)
            leaving = activated(call, linear, to_loss=False)
        else:
            leaving = forward(call, arriving, data)
        signals.update(dict.fromkeys(call.outputs, leaving))
    return before


def _walk_backward(graph: Graph, scales: Scales) -> dict[Call, Signal | Obstacle]:
    """The gradient at each call's outputs, before its activation; that of the loss has variance 1."""
    gradients: dict[int, list[Signal | Obstacle]] = defaultdict(list)
    for tensor in graph.outputs:
        gradients[tensor].append(_LINEAR)
    consumed = {tensor for call in graph.calls for tensor in call.inputs}
    after = {}
    for call in reversed(graph.calls):
        arriving = sum_of([gradient for tensor in call.outputs for gradient in gradients[tensor]] or [_LINEAR])
        to_loss = consumed.isdisjoint(call.outputs)
        if has_kernel(call):
            after[call] = activated(call, arriving, to_loss)
            leaving: Signal | Obstacle = Signal(variance=scales.backward.get(call.outputs[0], 1.0) ** 2)
        else:
            after[call] = arriving
            leaving = backward(call, arriving, to_loss)
        for tensor in call.inputs:
            gradients[tensor].append(leaving)
    return after
