"""One walk over a model's graph: the signal at every call forward, the gradient at every call backward."""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import keras
import numpy as np
from keras import layers

from keras_prelu.walk.activations import activation_of
from keras_prelu.walk.graph import Call, Graph, without_repeats
from keras_prelu.walk.overlap import normalization_gain, overlaps
from keras_prelu.walk.rule import Rule, Setting
from keras_prelu.walk.rules import (
    applied,
    differentiated,
    has_kernel,
    is_preprocessing,
    normalizes,
    rule_of,
)
from keras_prelu.walk.signal import POINTS, Array, Obstacle, Signal, State, added, average, joint_profile


class Kernels(Protocol):
    """The effect of a layer's kernels on a signal, by their current weights or by those that will be drawn."""

    def forward(self, call: Call, arriving: State) -> State:
        """The signal behind the kernels of a call, before its activation."""
        ...

    def backward(self, call: Call, gradient: State, arriving: State) -> State:
        """The gradient before them, from the one behind them and the signal before them."""
        ...


@dataclass(frozen=True)
class Walk:
    """The statistics at every call and tensor of a graph.

    Attributes:
        graph: The graph.
        signals: The signal that each tensor is.
        before: For each call with a kernel, the signal at its inputs.
        outputs: For each call with a kernel, the signal behind its kernel, before its activation.
        gradients: Works out `after`.
    """

    graph: Graph
    signals: dict[int, State]
    before: dict[Call, State]
    outputs: dict[Call, State]
    gradients: Callable[[], dict[Call, State]]

    @functools.cached_property
    def after(self) -> dict[Call, State]:
        """For each call with a kernel, the gradient with respect to its output; taken back when first asked for."""
        return self.gradients()

    @property
    def likeness(self) -> float:
        """C(0): E[y y'] / E[y^2] for two images that had nothing in common, with y the outputs of the last kernel."""
        last = next((state for state in reversed(self.outputs.values())), None)
        return last.likeness if isinstance(last, Signal) else math.nan


def walk(graph: Graph, kernels: Kernels, inputs: Sequence[Signal], *, preprocessed: bool, setting: Setting) -> Walk:
    """Takes signals from a model's inputs to its outputs, and gradients of variance 1 back.

    Args:
        graph: The model's graph.
        kernels: What kernels do.
        inputs: A signal for each input. Without position axes, the network is seen at one position: padding, strides
            and pooling then do nothing.
        preprocessed: Whether these are the signals behind whatever scales and shifts the data before the first layer.
        setting: How the model runs.

    Returns:
        The statistics. A signal that meets a layer of unknown effect is an `Obstacle` until the next normalization.
    """
    graph = without_repeats(graph)
    forward = _Forward(graph, kernels, inputs, preprocessed, setting)
    for call in graph.calls:
        forward.take(call)
    return Walk(
        graph,
        forward.signals,
        forward.before,
        forward.outputs,
        functools.partial(_backward, graph, kernels, forward, setting),
    )


def mean_over_calls(states: Sequence[State]) -> State:
    """The mean of what a layer sees in turn, or the first obstacle."""
    return _first_obstacle(states) or average([state for state in states if isinstance(state, Signal)])


def _first_obstacle(states: Sequence[State]) -> Obstacle | None:
    return next((state for state in states if isinstance(state, Obstacle)), None)


def _rule(call: Call) -> Rule | Obstacle:
    rule = rule_of(call)
    return rule if isinstance(rule, Rule) else Obstacle(call.path, type(call.operation).__name__, rule or "")


class _Forward:
    def __init__(
        self, graph: Graph, kernels: Kernels, inputs: Sequence[Signal], preprocessed: bool, setting: Setting
    ) -> None:
        self.kernels, self.setting, self.preprocessed = kernels, setting, preprocessed
        self.signals: dict[int, State] = dict(zip(graph.inputs, inputs, strict=True))
        self.before: dict[Call, State] = {}
        self.outputs: dict[Call, State] = {}
        self.rules: dict[Call, Rule | Obstacle] = {}
        self.seen_at_one_position = not any(signal.axes for signal in inputs)
        self._data = set(graph.inputs)

    def take(self, call: Call) -> None:
        """Works out what a call makes of the signals at its inputs."""
        arriving = [self.signals[tensor] for tensor in call.inputs]
        if has_kernel(call):
            leaving = self._behind_kernel(call, arriving)
        else:
            self.rules[call] = _rule(call)
            leaving = self._behind(call, arriving)
        self.signals.update(dict.fromkeys(call.outputs, leaving))

    def _behind_kernel(self, call: Call, arriving: Sequence[State]) -> State:
        obstacle = _first_obstacle(arriving)
        if isinstance(call.operation, layers.Embedding):  # multiplies one-hot vectors, whatever the tokens are
            self.before[call] = self.noise(call.output_shape)
        else:
            self.before[call] = obstacle or average([each for each in arriving if isinstance(each, Signal)])
        self.outputs[call] = self.kernels.forward(call, self.before[call])
        return _activated(call, self.outputs[call])

    def _behind(self, call: Call, arriving: Sequence[State]) -> State:
        of_data = all(tensor in self._data for tensor in call.inputs)
        rule = self.rules[call]
        if (
            of_data
            and self.preprocessed
            and (isinstance(rule, Obstacle) or is_preprocessing(call))
            and not _learns(call)
        ):
            self._data.update(call.outputs)
            first = self.signals[call.inputs[0]] if call.inputs else self.noise(call.output_shape)
            return first if isinstance(first, Obstacle) else self.noise(call.output_shape, first.second_moment)
        obstacle = _first_obstacle(arriving)
        if obstacle is not None and normalizes(call):
            arriving, obstacle = [self.noise(call.input_shapes[0])], None
        if obstacle is not None or isinstance(rule, Obstacle):
            return obstacle or rule  # type: ignore[return-value]
        return rule.forward(call, [each for each in arriving if isinstance(each, Signal)], self.setting)

    def noise(self, shape: Sequence[int | None], second_moment: float = 1.0) -> Signal:
        """Independent values of this shape."""
        return Signal.noise(second_moment, 0 if self.seen_at_one_position else max(len(shape) - 2, 0))


def _activated(call: Call, signal: State) -> State:
    """The signal behind the activation that a layer with a kernel applies to its own outputs."""
    activation = activation_of(getattr(call.operation, "activation", None))
    if isinstance(signal, Obstacle):
        return signal
    if isinstance(activation, str):
        return Obstacle(call.path, _activation_name(call), activation)
    return applied(activation, signal)


def _activation_name(call: Call) -> str:
    activation = call.operation.activation
    return getattr(activation, "__name__", type(activation).__name__)


def _learns(call: Call) -> bool:
    return isinstance(call.operation, keras.Layer) and bool(call.operation.trainable_variables)


def _backward(graph: Graph, kernels: Kernels, forward: _Forward, setting: Setting) -> dict[Call, State]:
    """The gradient behind the kernels of each call, before its activation."""
    shapes = {tensor: call.output_shape for call in graph.calls for tensor in call.outputs}
    gradients: dict[int, list[State]] = defaultdict(list)
    for tensor in graph.outputs:
        gradients[tensor].append(forward.noise(shapes.get(tensor, ())))
    consumed = {tensor for call in graph.calls for tensor in call.inputs}
    makers = {tensor: call for call in graph.calls if has_kernel(call) for tensor in call.outputs}
    overlap = overlaps(graph, forward.signals) if setting.training else {}
    after = {}
    for call in reversed(graph.calls):
        arriving = _summed([gradient for tensor in call.outputs for gradient in gradients[tensor]])
        if arriving is None:
            arriving = forward.noise(call.output_shape)  # of an output that nothing uses
        to_loss = consumed.isdisjoint(call.outputs)
        signals = [forward.signals[tensor] for tensor in call.inputs]
        if has_kernel(call):
            after[call] = arriving = _before_activation(call, arriving, forward.outputs[call], to_loss)
            leaving: Sequence[State] = [kernels.backward(call, arriving, forward.before[call])] * len(call.inputs)
        else:
            leaving = _before(call, forward.rules[call], arriving, signals, to_loss, setting)
            if setting.training and isinstance(call.operation, layers.BatchNormalization):
                tensor = call.inputs[0]
                leaving = [_uneven(call, leaving[0], signals[0], overlap[tensor], makers.get(tensor), setting)]
        for tensor, gradient in zip(call.inputs, leaving, strict=True):
            gradients[tensor].append(gradient)
    return after


def _uneven(call: Call, gradient: State, signal: State, overlap: float, maker: Call | None, setting: Setting) -> State:
    """The gradient of a batch normalization whose channels have variances that differ."""
    if isinstance(gradient, Obstacle) or isinstance(signal, Obstacle):
        return gradient
    grown = gradient.times(normalization_gain(call, signal, overlap, maker, setting))
    return replace(gradient, near=grown.near, others=grown.others)


def _summed(gradients: Sequence[State]) -> State | None:
    """The sum of the gradients of several consumers, which are independent; None without any."""
    obstacle = _first_obstacle(gradients)
    if obstacle is not None or len(gradients) <= 1:
        return obstacle or next(iter(gradients), None)
    signals = [gradient for gradient in gradients if isinstance(gradient, Signal)]
    most = max(signals, key=lambda signal: len(signal.shares))
    if all(len(signal.shares) in (1, len(most.shares)) for signal in signals):
        return replace(
            _added_groups([signal.bare().grouped_as(most) for signal in signals]), by_value=_by_value(signals)
        )
    return added(signals)


def _by_value(gradients: Sequence[Signal]) -> Array | None:
    """How the sum of gradients depends on the tensor's value."""
    if all(each.by_value is None for each in gradients):
        return None
    total = sum(each.second_moment for each in gradients)
    parts = [each.second_moment / total * (1.0 if each.by_value is None else each.by_value) for each in gradients]
    return np.asarray(sum(parts) + np.zeros_like(POINTS))


def _added_groups(signals: Sequence[Signal]) -> Signal:
    axes = max(signal.axes for signal in signals)
    alike = [signal for signal in signals if signal.axes == axes]
    near = np.sum([signal.near for signal in alike], axis=0)
    others = np.sum([signal.others for signal in alike], axis=0)
    return Signal(alike[0].shares, np.zeros_like(alike[0].mean), near, others, profile=joint_profile(alike))


def _before_activation(call: Call, gradient: State, signal: State, to_loss: bool) -> State:
    activation = activation_of(getattr(call.operation, "activation", None))
    if isinstance(gradient, Obstacle) or activation is None:
        return gradient
    if isinstance(activation, str):  # a softmax at the end belongs to the loss
        return gradient if to_loss else Obstacle(call.path, _activation_name(call), activation)
    if isinstance(signal, Obstacle):
        return Obstacle(signal.path, signal.kind, signal.reason)
    return differentiated(activation, gradient, signal)


def _before(
    call: Call, rule: Rule | Obstacle, gradient: State, signals: Sequence[State], to_loss: bool, setting: Setting
) -> Sequence[State]:
    """The gradient with respect to each input of a call without a kernel."""
    if isinstance(gradient, Obstacle):
        return [gradient] * len(call.inputs)
    if isinstance(rule, Obstacle):
        of_loss = to_loss and isinstance(call.operation, layers.Activation | layers.Softmax)
        return [gradient if of_loss else rule] * len(call.inputs)
    obstacle = _first_obstacle(signals)
    if obstacle is not None:
        return [obstacle] * len(call.inputs)
    return rule.backward(call, gradient, [each for each in signals if isinstance(each, Signal)], setting)
