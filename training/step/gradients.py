"""The gradient of one replica's share of a batch, as a function without side effects.

Weights, statistics and seeds come in as tensors and go out as tensors, so that the function can stand in a loop over
micro-batches and be compiled by XLA, where a mirrored variable cannot be assigned to.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_prelu.keras_internals import flatten_layers
from training.batch import Batch, cut
from training.config import Config
from training.data.mean import MeanSubtraction


class Share(NamedTuple):
    """What one replica adds to a step: sums over its images, and the statistics that its layers moved."""

    gradients: list[tf.Tensor]
    loss: tf.Tensor
    correct: tf.Tensor
    statistics: list[tf.Tensor]


def make_share(network: keras.Model, config: Config) -> Callable[[Batch, tf.Tensor, tf.Tensor, tf.Tensor], Share]:
    """Makes the function that differentiates the loss of a replica's images, micro-batch after micro-batch.

    Args:
        network: Built model from images, or from images and which of them count, to logits.
        config: `gradient_accumulation_steps`, `label_smoothing`, `xla` and `seed` are read.

    Returns:
        A function of a replica's batch, the step's number, a factor of the loss and the number of images that count on
        all replicas. Gradients are of the sum of the
        images' losses times the factor, one per trainable variable; `loss` is that sum without the factor. Of several
        micro-batches only one is in memory at a time.
    """
    layout, takes_shares = _Layout(network), len(network.inputs) > 1

    def differentiate(
        weights: list[tf.Tensor],
        statistics: list[tf.Tensor],
        fixed: list[tf.Tensor],
        part: Batch,
        factor: tf.Tensor,
        images: tf.Tensor,
    ) -> Share:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            others = layout.join(statistics, fixed)
            shares = tf.math.divide_no_nan(presence(part), images)
            inputs = [part["images"], shares] if takes_shares else part["images"]
            logits, others = network.stateless_call(weights, others, inputs, training=True)
            loss = tf.reduce_sum(cross_entropies(part, logits, config.label_smoothing))
            scaled = loss * factor
        gradients = tape.gradient(scaled, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return Share(gradients, loss, num_correct(part, logits), layout.statistics_of(others))

    if config.xla:
        differentiate = tf.function(differentiate, jit_compile=True, autograph=False)

    def share(batch: Batch, step: tf.Tensor, factor: tf.Tensor, images: tf.Tensor) -> Share:
        weights = [tf.convert_to_tensor(variable.value) for variable in network.trainable_variables]
        # A statistic that no operation moves would have no device of its own, which tf.distribute refuses.
        start = [tf.identity(variable.value) for variable in moving_statistics(network)]
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group

        def one(index: tf.Tensor, part: Batch, statistics: list[tf.Tensor]) -> Share:
            fixed = layout.fixed(_seeds(layout.num_generators, config.seed, step, index, replica))
            # statistics of several micro-batches are those of each
            counted = images if config.gradient_accumulation_steps == 1 else tf.reduce_sum(presence(part))
            return differentiate(weights, statistics, fixed, part, factor, counted)

        parts = cut(batch, config.gradient_accumulation_steps)
        if config.gradient_accumulation_steps == 1:
            return one(tf.constant(0), {name: values[0] for name, values in parts.items()}, start)
        zeros = Share([tf.zeros_like(weight) for weight in weights], tf.zeros(()), tf.zeros(()), start)
        # A Python loop would let TensorFlow compute all micro-batches at once, and hold them all in memory.
        return tf.foldl(
            lambda sums, indexed: _add(sums, one(indexed[0], indexed[1], sums.statistics)),
            (tf.range(config.gradient_accumulation_steps), parts),
            zeros,
            parallel_iterations=1,
        )

    return share


def with_penalties(
    gradients: list[tf.Tensor], variables: Sequence[keras.Variable], factor: tf.Tensor
) -> list[tf.Tensor]:
    """Adds to the gradients of the loss those of the variables' regularizers, times a factor."""

    def add(gradient: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
        if variable.regularizer is None:
            return gradient
        weight = tf.convert_to_tensor(variable.value)
        with tf.GradientTape() as tape:
            tape.watch(weight)
            penalty = tf.cast(factor, weight.dtype) * variable.regularizer(weight)
        return gradient + tape.gradient(penalty, weight)

    return [add(*pair) for pair in zip(gradients, variables, strict=True)]


def presence(batch: Batch) -> tf.Tensor:
    """1.0 for each image of a batch, 0.0 for each blank that only fills it up."""
    return tf.cast(batch["weights"] > 0, tf.float32)


def cross_entropies(batch: Batch, logits: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Each image's cross-entropy in nats, times its weight.

    Args:
        batch: Its labels, weights and, of mixed images, other labels count.
        logits: `(N, classes)`, of any float type; computed in float32.
        label_smoothing: The share of each label that is spread evenly over all classes.

    Reference:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016, section 7.
    """
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["labels"], logits)
    if "mix" in batch:
        others = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["other_labels"], logits)
        losses = batch["mix"] * losses + (1 - batch["mix"]) * others
    if label_smoothing:
        evenly = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * evenly
    return losses * batch["weights"]


def num_correct(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """How many images, blanks left out, have their largest logit at their label."""
    hits = tf.cast(tf.argmax(logits, axis=-1) == batch["labels"], tf.float32)
    return tf.reduce_sum(hits * presence(batch))


@tf.autograph.experimental.do_not_convert  # which would warn that it takes no generators
def moving_statistics(network: keras.Model) -> list[keras.Variable]:
    """The variables that layers move while they train, as BatchNormalization's means.

    They are the untrained ones without the seeds and without those that are frozen or constant.
    """
    constant = {id(each) for layer in flatten_layers(network) if _is_constant(layer) for each in layer.variables}
    return [each for each in network.non_trainable_variables if not _is_seed(each) and id(each) not in constant]


def _is_constant(layer: keras.Layer) -> bool:
    return not layer.trainable or isinstance(layer, (MeanSubtraction, keras.layers.Normalization))


def _add(sums: Share, part: Share) -> Share:
    gradients = [total + gradient for total, gradient in zip(sums.gradients, part.gradients, strict=True)]
    return Share(gradients, sums.loss + part.loss, sums.correct + part.correct, part.statistics)


def _is_seed(variable: keras.Variable) -> bool:
    return bool(variable.name == "seed_generator_state")  # the name keras.random.SeedGenerator gives to its only one


class _Layout:
    """Which of a network's untrained variables a step moves; the others are seeds, constants and frozen weights."""

    def __init__(self, network: keras.Model) -> None:
        self._variables = network.non_trainable_variables
        moving = {id(variable) for variable in moving_statistics(network)}
        self._move = [id(variable) in moving for variable in self._variables]
        self.num_generators = sum(_is_seed(variable) for variable in self._variables)

    def fixed(self, seeds: list[tf.Tensor]) -> list[tf.Tensor]:
        """The seeds and the constants in the network's order."""
        each_seed = iter(seeds)
        fixed = [variable for variable, moves in zip(self._variables, self._move, strict=True) if not moves]
        return [next(each_seed) if _is_seed(each) else tf.convert_to_tensor(each.value) for each in fixed]

    def join(self, statistics: list[tf.Tensor], fixed: list[tf.Tensor]) -> list[tf.Tensor]:
        each_statistic, each_fixed = iter(statistics), iter(fixed)
        return [next(each_statistic if moves else each_fixed) for moves in self._move]

    def statistics_of(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        return [value for value, moves in zip(values, self._move, strict=True) if moves]


def _seeds(num_generators: int, seed: int, step: tf.Tensor, part: tf.Tensor, replica: int) -> list[tf.Tensor]:
    """The state that each of a model's generators starts a micro-batch with.

    Keras mirrors the states: left to itself, every replica would drop the same units.
    """
    state = tf.constant([seed, 0], tf.int64)
    for number in (step, part, replica):
        state = tf.random.fold_in(state, tf.cast(number, tf.int64))
    return [tf.random.fold_in(state, tf.constant(index, tf.int64)) for index in range(num_generators)]
