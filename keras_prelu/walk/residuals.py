"""Residual sums, and how small their branches must start for the number of sums not to matter."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from keras_prelu.walk.graph import Call, Graph
from keras_prelu.walk.rules import has_kernel, normalizes, sums


@dataclass(frozen=True)
class Scales:
    """Factors on the standard deviation of kernels in residual branches, by the kernel's output tensor.

    Attributes:
        forward: For a branch's last kernels, which decide what the branch adds to the signal.
        backward: For a branch's first kernels, which decide what it adds to the gradient.
    """

    forward: dict[int, float]
    backward: dict[int, float]


def residual_scales(graph: Graph) -> Scales:
    """Scales each residual branch by 1 / sqrt(L), with L the number of branches in the model.

    In y = x + f(x) with f of variance 1 / L, the variance after L sums is 1 + L / L = 2 at any depth. With f of
    variance 1 it would be 1 + L, and 2^L with an f that answers to the scale of its input. Unlike with branches that
    start at 0, every kernel has a gradient from the first step on.

    A sum is residual where one of its terms leads to another one: the first is the shortcut, the second the branch.
    Where both have kernels of their own, as with a projection in place of the shortcut, nothing is scaled; nor is a
    kernel that a normalization in its branch follows, which would undo the factor.

    Args:
        graph: The model's graph.

    Returns:
        The scales. Kernels not named in it keep their size.

    Reference:
        Hayou et al., "Stable ResNet", 2021: this factor keeps the signal and the gradient.
    """
    ancestors = _ancestors(graph)
    branches = [branch for call in graph.calls if sums(call) for branch in _branches(call, graph, ancestors)]
    makers = {output: call for call in graph.calls for output in call.outputs}
    scales = Scales({}, {})
    for term, kernels in branches:
        above = {kernel: kernels & ancestors[kernel] for kernel in kernels}
        last = kernels.difference(*above.values())
        first = [kernel for kernel in kernels if not above[kernel]]
        added = max(1.0, _added(term, last, makers, ancestors))
        scales.forward.update(dict.fromkeys(last, 1 / math.sqrt(len(branches) * added)))
        scales.backward.update(dict.fromkeys(first, 1 / math.sqrt(len(branches) * len(first))))
    return scales


def _ancestors(graph: Graph) -> dict[int, set[int]]:
    """For each tensor those that it is computed from."""
    ancestors: dict[int, set[int]] = {tensor: set() for tensor in graph.inputs}
    for call in graph.calls:
        above = set(call.inputs).union(*(ancestors[tensor] for tensor in call.inputs))
        ancestors.update(dict.fromkeys(call.outputs, above))
    return ancestors


def _branches(call: Call, graph: Graph, ancestors: dict[int, set[int]]) -> Iterator[tuple[int, set[int]]]:
    """Each branch of a residual sum with the outputs of its kernels, but of those that a normalization follows."""
    origins = {term: _origin(term, graph) for term in call.inputs}
    shortcuts = {
        term
        for term, origin in origins.items()
        if any(origin in ancestors[other] for other in call.inputs if other != term)
    }
    starts = {origins[term] for term in shortcuts}
    for term in set(call.inputs) - shortcuts:
        above = ancestors[term] | {term}
        inside = [each for each in graph.calls if each.outputs[0] in above and ancestors[each.outputs[0]] & starts]
        normalized = set().union(*(ancestors[each.outputs[0]] for each in inside if normalizes(each)))
        kernels = {each.outputs[0] for each in inside if has_kernel(each)} - normalized
        if kernels:
            yield term, kernels


def _added(tensor: int, last: set[int], makers: dict[int, Call], ancestors: dict[int, set[int]]) -> float:
    """The number of outputs of last kernels that a tensor adds up; where they lie side by side, the mean number."""
    if tensor in last:
        return 1.0
    if not ancestors[tensor] & last:
        return 0.0
    call = makers[tensor]
    counts = [_added(each, last, makers, ancestors) for each in call.inputs]
    return sum(counts) if sums(call) else sum(counts) / len(counts)


def _origin(term: int, graph: Graph) -> int:
    """Where a shortcut begins at the latest: the term before all calls of one input and no kernel."""
    makers = {output: call for call in graph.calls for output in call.outputs}
    while term in makers and len(makers[term].inputs) == 1 and not has_kernel(makers[term]):
        (term,) = makers[term].inputs
    return term
