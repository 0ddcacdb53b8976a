"""The statistics of a signal that equations 7 to 15 need, and more: its mean, and how alike its values are."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from keras_prelu.walk.positions import NEAR, AxisMap, flattened

Array = np.ndarray[Any, np.dtype[np.float64]]

POINTS = np.linspace(-5.0, 5.0, 201)  # standard normal values that stand for a distribution,
WEIGHTS = np.exp(-(POINTS**2) / 2) / np.exp(-(POINTS**2) / 2).sum()  # and their probabilities


class Activation(Protocol):
    """An elementwise function, with what it does to a signal."""

    @property
    def name(self) -> str:
        """The name in reports."""
        ...

    @property
    def negative_slope(self) -> float | None:
        """The slope of a rectifier; None for another function."""
        ...

    def __call__(self, values: Array) -> Array:
        """The function itself."""
        ...

    def forward(self, signal: "Signal") -> "Signal":
        """The signal behind the function."""
        ...

    def derivative(self, signal: "Signal") -> tuple[Array, Array]:
        """E[f'(x) f'(x')] in the shapes of `near` and `others`, x and x' from the signal before the function."""
        ...


@dataclass(frozen=True)
class Signal:
    """A tensor's statistics over images, positions and channels, on average over the weights that made it.

    Channels fall into groups of one kind each: those that a concatenation joins differ. With x and x' two values of one
    channel, the covariances here are E[x x'], not about the mean.

    A signal without position axes stands for one position of a network, or for a tensor that has none.

    Attributes:
        shares: Shape `(groups,)`. The fraction of the channels in each group; they sum to 1.
        mean: Shape `(groups,)`. The mean.
        near: Shape `(groups, offsets, ...)` with an axis for each position axis. E[x x'] within an image by the
            distance of the two positions: 0 (the second moment) to `NEAR`, then all that are farther apart.
        others: Shape `(groups,)`. E[x x'] for two different images, on average over any two positions.
        activation: The elementwise function that made it from `source`, if one did.
        source: The signal before that function.
        profile: For each position axis the second moment at each position, with a mean of 1, where zeros of padding
            have made it uneven; None where it is the same everywhere. Empty where it is so along all axes. The
            statistics above are averages over positions.
        by_value: Of a gradient with respect to a tensor: its mean square where the tensor's value, or the source of
            that, is `POINTS` standard deviations from the mean, relative to the mean square over all values. None where
            it does not depend on the value.
        unevenness: E[v] E[1 / v] of the variances v of single channels, behind a kernel of which each channel has few
            weights; of the gradient, where a normalization has divided it by these.
    """

    shares: Array
    mean: Array
    near: Array
    others: Array
    activation: Activation | None = None
    source: "Signal | None" = None
    profile: tuple[Array | None, ...] = ()
    by_value: Array | None = None
    unevenness: float = 1.0

    def __post_init__(self) -> None:
        """Forgets the profile of other axes than it has."""
        if len(self.profile) != self.axes:
            object.__setattr__(self, "profile", ())

    @classmethod
    def noise(cls, second_moment: float = 1.0, axes: int = 0) -> "Signal":
        """Independent values of mean 0: the data before the first layer, or a gradient that enters at an output."""
        near = np.zeros((1, *[NEAR + 2] * axes))
        near[(0, *[0] * axes)] = second_moment
        return cls(np.ones(1), np.zeros(1), near, np.zeros(1))

    @property
    def axes(self) -> int:
        """The number of position axes."""
        return self.near.ndim - 1

    @property
    def squares(self) -> Array:
        """The second moment of each group."""
        return self.near.reshape(len(self.near), -1)[:, 0]

    @property
    def second_moment(self) -> float:
        """The second moment over all channels."""
        return float(self.shares @ self.squares)

    @property
    def likeness(self) -> float:
        """E[x x'] / E[x^2] for two different images: 1 where the network makes them alike."""
        return float(self.shares @ self.others) / max(self.second_moment, sys.float_info.min)

    @property
    def negative_slope(self) -> float | None:
        """The slope of the rectifier that made it: 1 where none did, None where another function did."""
        return 1.0 if self.activation is None else self.activation.negative_slope

    def column(self, values: Array) -> Array:
        """Values of shape `(groups,)`, shaped so that they multiply `near`."""
        return values.reshape(-1, *[1] * self.axes)

    def times(self, factor: Any) -> "Signal":
        """The signal with its second moments multiplied by a factor, for all groups or for each."""
        factors = np.broadcast_to(np.asarray(factor, "float64"), self.shares.shape)
        return Signal(
            self.shares,
            np.sqrt(factors) * self.mean,
            self.column(factors) * self.near,
            factors * self.others,
            profile=self.profile,
            by_value=self.by_value,
        )

    def affine(self, scale: float, offset: float, scale_square: float, offset_square: float) -> "Signal":
        """The signal times a scale plus an offset, each given by its mean and its mean square over channels."""
        both = 2 * scale * offset * self.mean
        return Signal(
            self.shares,
            scale * self.mean + offset,
            scale_square * self.near + self.column(both) + offset_square,
            scale_square * self.others + both + offset_square,
            profile=self.profile,
        )

    def moved(self, maps: Sequence[AxisMap]) -> "Signal":
        """The signal after a linear map of each position axis; itself where it has not as many axes."""
        if len(maps) != self.axes:
            return self
        near, effects = self.near, [each.on(profile) for each, profile in zip(maps, self._profiles, strict=True)]
        for axis, effect in enumerate(effects, start=1):
            near = np.moveaxis(np.tensordot(effect.near, near, (1, axis)), 0, axis)
        means, pairs = (float(np.prod([getattr(each, name) for each in effects])) for name in ("mean", "others"))
        source = self.source and self.source.moved(maps)
        profile = tuple(flattened(each.squares @ self._along(axis)) for axis, each in enumerate(effects))
        return Signal(self.shares, means * self.mean, near, pairs * self.others, self.activation, source, profile)

    @property
    def _profiles(self) -> tuple[Array | None, ...]:
        return self.profile or (None,) * self.axes

    def _along(self, axis: int) -> Array:
        """The covariances along one axis, at distance 0 along the others."""
        mixed = np.tensordot(self.shares, self.near, 1)
        return np.moveaxis(mixed, axis, -1).reshape(-1, NEAR + 2)[0]

    def mixed(self) -> "Signal":
        """The signal with its groups merged into one."""
        if len(self.shares) == 1:
            return self
        near = np.tensordot(self.shares, self.near, 1)[np.newaxis]
        mean, others = (np.atleast_1d(self.shares @ values) for values in (self.mean, self.others))
        source = self.source and self.source.mixed()
        return Signal(np.ones(1), mean, near, others, self.activation, source, self.profile)

    def grouped_as(self, other: "Signal") -> "Signal":
        """The signal with the groups of another one, if it has one group only."""
        groups = len(other.shares)
        if len(self.shares) == groups:
            return self
        merged = self.mixed()
        near, mean, others = (np.repeat(each, groups, axis=0) for each in (merged.near, merged.mean, merged.others))
        return Signal(other.shares, mean, near, others, profile=self.profile)

    def bare(self) -> "Signal":
        """The signal without the memory of the function that made it, or of the values that it belongs to."""
        return replace(self, activation=None, source=None, by_value=None, unevenness=1.0)


@dataclass(frozen=True)
class Obstacle:
    """A layer whose effect on a signal is not known.

    Attributes:
        path: The layer's path.
        kind: The layer's class, or the name of its activation.
        reason: Why, where there is more to say.
    """

    path: str
    kind: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" + (f", which {self.reason}" if self.reason else "")


State = Signal | Obstacle  # of a tensor: what is known of it, or the layer that hides it


def concatenated(signals: Sequence[Signal], shares: Sequence[float]) -> Signal:
    """Signals side by side, their groups kept apart.

    Args:
        signals: The parts.
        shares: The fraction of the channels that each has.
    """
    axes = max(signal.axes for signal in signals)
    parts = [broadcast(signal, axes) for signal in signals]
    first, *rest = [signal.activation for signal in signals]
    alike = first is not None and all(each == first for each in rest)
    sources = [signal.source for signal in signals if signal.source is not None]
    return Signal(
        np.concatenate([share * signal.shares for signal, share in zip(parts, shares, strict=True)]),
        np.concatenate([signal.mean for signal in parts]),
        np.concatenate([signal.near for signal in parts]),
        np.concatenate([signal.others for signal in parts]),
        first if alike else None,
        concatenated(sources, shares) if alike and len(sources) == len(signals) else None,
        joint_profile(parts, shares),
    )


def broadcast(signal: Signal, axes: int) -> Signal:
    """A signal with position axes along which it does not vary in front of its own."""
    missing = axes - signal.axes
    if missing <= 0:
        return signal
    groups = len(signal.shares)
    shape = (groups, *[NEAR + 2] * missing, *signal.near.shape[1:])
    near = np.broadcast_to(signal.near.reshape(groups, *[1] * missing, *signal.near.shape[1:]), shape)
    profile = signal.profile and (None,) * missing + signal.profile
    return replace(signal, near=near, source=signal.source and broadcast(signal.source, axes), profile=profile)


def joint_profile(signals: Sequence[Signal], shares: Sequence[float] | None = None) -> tuple[Array | None, ...]:
    """The profile of signals side by side or added up, in proportion to their shares of the second moment."""
    weights = [signal.second_moment for signal in signals]
    if shares is not None:
        weights = [weight * share for weight, share in zip(weights, shares, strict=True)]
    if not any(signal.profile for signal in signals) or sum(weights) <= 0:
        return ()
    profile = []
    for axis in range(signals[0].axes):
        along = [signal.profile[axis] if signal.profile else None for signal in signals]
        length = max((len(each) for each in along if each is not None), default=0)
        filled = [np.ones(length) if each is None or len(each) != length else each for each in along]
        total = np.sum([weight * each for weight, each in zip(weights, filled, strict=True)], axis=0)
        profile.append(flattened(total / sum(weights)) if length else None)
    return tuple(profile)


def average(signals: Sequence[Signal]) -> Signal:
    """The mean of the statistics of signals that a layer sees in turn."""
    if len(signals) == 1:
        return signals[0]
    axes = max(signal.axes for signal in signals)
    return concatenated([broadcast(each, axes) for each in signals], [1 / len(signals)] * len(signals)).mixed()


def added(signals: Sequence[Signal], signs: Sequence[float] | None = None) -> Signal:
    """The sum of signals that are independent but for their means.

    Behind rectifiers the means are not 0, and the second moment of a sum of n such signals grows with n^2.

    Args:
        signals: The terms.
        signs: A factor for each; 1 if not given.
    """
    axes = max(signal.axes for signal in signals)
    terms = [broadcast(signal, axes).mixed() for signal in signals]
    factors = [1.0] * len(terms) if signs is None else list(signs)
    mean = sum(factor * term.mean for factor, term in zip(factors, terms, strict=True))
    pairs = list(zip(factors, terms, strict=True))
    near = sum(factor**2 * (term.near - term.column(term.mean**2)) for factor, term in pairs)
    others = sum(factor**2 * (term.others - term.mean**2) for factor, term in pairs)
    profile = joint_profile(terms)
    return Signal(
        np.ones(1), np.asarray(mean), np.asarray(near + mean**2), np.asarray(others + mean**2), profile=profile
    )


def multiplied(signals: Sequence[Signal]) -> Signal:
    """The product of signals that are independent, as of a feature and its gate."""
    axes = max(signal.axes for signal in signals)
    largest = max(signals, key=lambda signal: len(signal.shares))
    factors = [broadcast(signal, axes) for signal in signals]
    if any(len(signal.shares) not in (1, len(largest.shares)) for signal in signals):
        factors = [signal.mixed() for signal in factors]
    else:
        factors = [signal.grouped_as(largest) for signal in factors]
    result = factors[0]
    for factor in factors[1:]:
        result = Signal(
            result.shares,
            result.mean * factor.mean,
            result.near * factor.near,
            result.others * factor.others,
            profile=result.profile or factor.profile,
        )
    return result.bare()
