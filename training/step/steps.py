"""Steps of training and of evaluation, exact over the global batch on any number of replicas."""

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from training.batch import Batch, cut
from training.config import Config
from training.distribute.strategy import mean_over_replicas, sum_over_replicas, update_copies
from training.step.gradients import cross_entropies, make_share, moving_statistics, num_correct
from training.step.moving_average import MovingAverage
from training.step.update import MomentumSGD

Metrics = dict[str, tf.Tensor]
Step = Callable[[Batch], Metrics]


def make_train_step(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: MomentumSGD,
    config: Config,
    average: MovingAverage | None = None,
) -> Step:
    """Makes the function that takes one distributed batch and moves the model's weights once.

    The gradient is that of the mean cross-entropy over all images of the global batch with their weights, however
    they are spread over the replicas: each replica divides its sum by the weights of all, and the optimizer sums the
    gradients. (A mean of the replicas' means, as `model.fit` takes, is wrong as soon as they differ in size.)

    What a layer draws, as a dropout mask, follows from the seed, the step, the part of the batch and the replica.
    Statistics that layers move are averaged over the replicas.

    Args:
        strategy: Under whose scope the model, the optimizer and the average were built.
        model: From images to logits.
        optimizer: Its `iterations` count the steps.
        config: `gradient_accumulation_steps`, `label_smoothing`, `xla` and `seed` are read.
        average: Moved after the weights.

    Returns:
        A function of a distributed batch; it returns the global batch's mean `loss` and `accuracy`, the
        `gradient_norm` before clipping, the `learning_rate`, and with float16 the `loss_scale`.
    """
    share_of = make_share(model, config)

    def replica_step(batch: Batch) -> Metrics:
        total = sum_over_replicas(tf.reduce_sum(batch["weights"]))
        step = tf.convert_to_tensor(optimizer.iterations.value)
        state = optimizer.state()
        factor = tf.math.divide_no_nan(optimizer.scale_loss(tf.ones(())), total)
        share = share_of(batch, step, factor)
        norm = optimizer.apply(share.gradients, model.trainable_variables)
        if share.statistics:
            update_copies(moving_statistics(model), _assign, mean_over_replicas(share.statistics))
        if average is not None:
            average.update(model, step)
        return _means({"loss": share.loss, "accuracy": share.correct}, total) | {"gradient_norm": norm} | state

    return _distributed(strategy, replica_step)


def repeated(step: Step) -> Callable[[Iterator[Batch], tf.Tensor], Metrics]:
    """Makes the function that takes several steps in one call, without Python between them.

    Returns:
        A function of an iterator over distributed batches and the number of steps, an int32 tensor; it returns each
        of the step's metrics with an entry a step.
    """

    @tf.function(reduce_retracing=True)
    def steps(batches: Iterator[Batch], num_steps: tf.Tensor) -> Metrics:
        first = step(next(batches))

        def one_more(_: tf.Tensor) -> Metrics:
            return step(next(batches))

        types = {name: value.dtype for name, value in first.items()}
        rest = tf.map_fn(one_more, tf.range(1, num_steps), fn_output_signature=types, parallel_iterations=1)
        return {name: tf.concat([[value], rest[name]], axis=0) for name, value in first.items()}

    return steps


def make_evaluation_step(strategy: tf.distribute.Strategy, model: keras.Model) -> Step:
    """Makes the function that judges one distributed batch.

    Returns:
        A function of a distributed batch; it returns the global batch's mean `loss` and `accuracy`, and `count`, the
        sum of its weights, by which the means of several batches are to be averaged.
    """

    def replica_step(batch: Batch) -> Metrics:
        total = sum_over_replicas(tf.reduce_sum(batch["weights"]))
        filled = {name: values[0] for name, values in cut(batch, 1).items()}
        logits = model(filled["images"], training=False)
        sums = {"loss": tf.reduce_sum(cross_entropies(filled, logits)), "accuracy": num_correct(filled, logits)}
        return _means(sums, total) | {"count": total}

    return _distributed(strategy, replica_step)


def _distributed(strategy: tf.distribute.Strategy, replica_step: Step) -> Step:
    @tf.function(reduce_retracing=True)
    def step(batch: Batch) -> Metrics:
        results = strategy.run(replica_step, args=(batch,))
        return {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}

    return step


def _means(sums: Metrics, total: tf.Tensor) -> Metrics:
    return {name: tf.math.divide_no_nan(value, total) for name, value in sum_over_replicas(sums).items()}


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(value)
