"""What replicas do together inside `strategy.run`, by tf.distribute's public API alone."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


def sum_over_replicas(value: Any) -> Any:
    """The sum of each replica's tensor, or of each tensor of its structure; every replica gets it."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def mean_over_replicas(value: Any) -> Any:
    """The mean of each replica's tensor, or of each tensor of its structure; every replica gets it."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)


def update_copies(
    variables: Sequence[tf.Variable | keras.Variable], update: Callable[..., Any], *values: Sequence[Any]
) -> None:
    """Calls `update(copy, *values)` with each replica's copy of each variable and the values beside it.

    Assigning to a mirrored variable inside a replica asks how the replicas' values are to be combined. Here they are
    equal, having been reduced before.

    Args:
        variables: Mirrored variables, or plain ones.
        update: Assigns to the copy; it gets tensors, or copies where a value is a variable itself.
        values: For each further argument of `update` a list with one value a variable.
    """

    def update_all(strategy: tf.distribute.Strategy, *values: Sequence[Any]) -> None:
        for variable, *arguments in zip(variables, *values, strict=True):
            strategy.extended.update(_native(variable), update, args=tuple(arguments), group=False)

    native = [[_native(value) for value in each] for each in values]
    tf.distribute.get_replica_context().merge_call(update_all, args=tuple(native))


def _native(value: Any) -> Any:
    return value.value if isinstance(value, keras.Variable) else value
