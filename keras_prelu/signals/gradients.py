"""Gradients of a scalar by the automatic differentiation of the backend that Keras runs on."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

Tap = Callable[[Any], Any]
Gradients = tuple[list[Any], list[Any], list[Any], Any]


def differentiate(run: Callable[[Tap], tuple[Any, Any]], variables: Sequence[keras.Variable]) -> Gradients:
    """Runs a function and differentiates the scalar that it returns.

    Args:
        run: A function of `tap` that returns a scalar and any other tensors. It passes every tensor whose gradient is
            wanted through `tap` and computes with what comes back. On JAX it runs twice, at first for the shapes only.
        variables: Trainable variables whose gradients are wanted too.

    Returns:
        The tensors that passed the tap, in their order; the gradients with respect to them; those with respect to the
        variables, all zeros where the scalar does not depend on one; and the other tensors that `run` returned.

    Examples:
        >>> weight = keras.Variable([2.0, 3.0])
        >>> def run(tap):
        ...     return keras.ops.sum(tap(weight * weight) * 5.0), None
        >>> _, tapped, weights, _ = differentiate(run, [weight])
        >>> [keras.ops.convert_to_numpy(gradient).tolist() for gradient in (*tapped, *weights)]
        [[5.0, 5.0], [20.0, 30.0]]
    """
    by_backend = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return by_backend[keras.config.backend()](run, variables)


def _tensorflow(run: Callable[[Tap], tuple[Any, Any]], variables: Sequence[keras.Variable]) -> Gradients:
    import tensorflow as tf

    tapped: list[Any] = []
    with tf.GradientTape() as tape:

        def tap(values: Any) -> Any:
            tapped.append(tf.identity(values))
            tape.watch(tapped[-1])
            return tapped[-1]

        scalar, others = run(tap)
    sources = (tapped, [variable.value for variable in variables])
    gradients, of_variables = tape.gradient(scalar, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tapped, gradients, list(map(tf.convert_to_tensor, of_variables)), others  # an embedding's is sparse


def _torch(run: Callable[[Tap], tuple[Any, Any]], variables: Sequence[keras.Variable]) -> Gradients:
    import torch

    tapped: list[Any] = []

    def tap(values: Any) -> Any:
        tapped.append(values.clone().requires_grad_())
        return tapped[-1]

    scalar, others = run(tap)
    sources = [*tapped, *(variable.value for variable in variables)]
    gradients = torch.autograd.grad(scalar, sources, allow_unused=True, materialize_grads=True)
    return tapped, list(gradients[: len(tapped)]), list(gradients[len(tapped) :]), others


def _jax(run: Callable[[Tap], tuple[Any, Any]], variables: Sequence[keras.Variable]) -> Gradients:
    import jax

    def run_with(values: list[Any], offsets: list[Any] | None) -> tuple[Any, Any]:
        tapped: list[Any] = []

        def tap(passing: Any) -> Any:
            tapped.append(passing if offsets is None else passing + offsets[len(tapped)])
            return tapped[-1]

        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            scalar, others = run(tap)
        return scalar, (tapped, others)

    values = [variable.value for variable in variables]
    _, (shapes, _) = jax.eval_shape(lambda values: run_with(values, None), values)
    zeros = [jax.numpy.zeros(each.shape, each.dtype) for each in shapes]  # what is added has the sum's gradient
    (of_variables, gradients), (tapped, others) = jax.grad(run_with, argnums=(0, 1), has_aux=True)(values, zeros)
    return tapped, gradients, of_variables, others
