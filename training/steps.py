"""One step of training and one of evaluation, exact over the global batch on any number of replicas."""

from collections.abc import Callable

import keras
import tensorflow as tf

from training.pipeline import Batch

Metrics = dict[str, tf.Tensor]
Step = Callable[[Batch], Metrics]


def make_train_step(strategy: tf.distribute.Strategy, model: keras.Model, optimizer: keras.Optimizer) -> Step:
    """Makes the function that takes one distributed batch and moves the model's weights once.

    The gradient is that of the mean cross-entropy over all images of the global batch with their weights, however
    they are spread over the replicas: each replica divides its sum by the weights of all, and the optimizer sums the
    gradients. (A mean of the replicas' means, as `model.fit` takes, is wrong as soon as they differ in size.)

    Returns:
        A function of a distributed batch; it returns the global batch's mean `loss` and `accuracy`.
    """

    def replica_step(batch: Batch) -> Metrics:
        total = _sum_over_replicas(tf.reduce_sum(batch["weights"]))
        with tf.GradientTape() as tape:
            logits = model(batch["images"], training=True)
            loss = tf.reduce_sum(_cross_entropies(batch, logits)) / total
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return _means({"loss": loss * total, "accuracy": _num_correct(batch, logits)}, total)

    return _distributed(strategy, replica_step)


def make_evaluation_step(strategy: tf.distribute.Strategy, model: keras.Model) -> Step:
    """Makes the function that judges one distributed batch.

    Returns:
        A function of a distributed batch; it returns the global batch's mean `loss` and `accuracy`, and `count`, the
        sum of its weights, by which the means of several batches are to be averaged.
    """

    def replica_step(batch: Batch) -> Metrics:
        total = _sum_over_replicas(tf.reduce_sum(batch["weights"]))
        logits = model(batch["images"], training=False)
        sums = {
            "loss": tf.reduce_sum(_cross_entropies(batch, logits)),
            "accuracy": _num_correct(batch, logits),
        }
        return _means(sums, total) | {"count": total}

    return _distributed(strategy, replica_step)


def _distributed(strategy: tf.distribute.Strategy, replica_step: Step) -> Step:
    @tf.function(reduce_retracing=True)
    def step(batch: Batch) -> Metrics:
        results = strategy.run(replica_step, args=(batch,))
        return {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}

    return step


def _cross_entropies(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["labels"], tf.cast(logits, tf.float32))
    return losses * batch["weights"]


def _num_correct(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    hits = tf.cast(tf.argmax(logits, axis=-1) == batch["labels"], tf.float32)
    return tf.reduce_sum(hits * batch["weights"])


def _means(sums: Metrics, total: tf.Tensor) -> Metrics:
    return {name: _sum_over_replicas(value) / total for name, value in sums.items()}


def _sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
