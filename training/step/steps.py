"""Steps of training and of evaluation, exact over the global batch on any number of replicas."""

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from training.batch import Batch, cut
from training.config import Config
from training.distribute.strategy import mean_over_replicas, sum_over_replicas, update_copies
from training.step.batch_statistics import training_network
from training.step.gradients import cross_entropies, make_share, moving_statistics, presence, with_penalties
from training.step.moving_average import MovingAverage
from training.step.update import Updater, assign

Metrics = dict[str, tf.Tensor]
Step = Callable[[Batch], Metrics]
TOP = 5  # of the top-5 accuracy, which more classes than that have


def make_train_step(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    updater: Updater,
    config: Config,
    average: MovingAverage | None = None,
) -> Step:
    """Makes the function that takes one distributed batch and moves the model's trainable weights once.

    The gradient is that of the mean cross-entropy over all images of the global batch with their weights, however
    they are spread over the replicas: each replica divides its sum by the weights of all, and the updater sums the
    gradients. (A mean of the replicas' means, as `model.fit` takes, is wrong as soon as they differ in size.) The
    weights' regularizers add their gradients, as in Keras; the `loss` that is returned is without them.

    A BatchNormalization normalizes by the whole global batch. A layer's random draws, as a dropout mask, follow from
    the seed, the step, the micro-batch and the replica. Other statistics that layers move are averaged over the
    replicas.

    Args:
        strategy: Under whose scope the model, the updater and the average were built.
        model: From images to logits. The layers that are frozen now stay so: make another step when that changes.
        updater: Counts the steps.
        config: `gradient_accumulation_steps`, `label_smoothing`, `xla` and `seed` are read.
        average: Moved after the weights.

    Returns:
        A function of a distributed batch; it returns the global batch's mean `loss` and `accuracy`, the
        `gradient_norm` before clipping, the `learning_rate`, and with float16 the `loss_scale`.

    Raises:
        InputError: A BatchNormalization that cannot be exact.
    """
    one_pass = config.gradient_accumulation_steps == 1 and not config.xla
    network = training_network(model, exchanges=one_pass or strategy.num_replicas_in_sync == 1)
    share_of = make_share(network, config)

    def replica_step(batch: Batch) -> Metrics:
        present = tf.reduce_sum(presence(batch))
        weights, images = tf.unstack(sum_over_replicas(tf.stack([tf.reduce_sum(batch["weights"]), present])))
        step, state = updater.steps, updater.state()
        share = share_of(batch, step, tf.math.divide_no_nan(updater.scale_loss(tf.ones(())), weights), images)
        own_part = updater.scale_loss(tf.ones(())) / strategy.num_replicas_in_sync
        gradients = with_penalties(share.gradients, network.trainable_variables, own_part)
        norm = updater.apply(gradients, network.trainable_variables)
        if share.statistics:
            update_copies(moving_statistics(network), assign, mean_over_replicas(share.statistics))
        if average is not None:
            average.update(step)
        loss, correct = tf.unstack(sum_over_replicas(tf.stack([share.loss, share.correct])))
        means = {"loss": tf.math.divide_no_nan(loss, weights), "accuracy": tf.math.divide_no_nan(correct, images)}
        return means | {"gradient_norm": norm} | state

    return _distributed(strategy, replica_step)


def repeated(step: Step) -> Callable[[Iterator[Batch], tf.Tensor], Metrics]:
    """Makes the function that takes several steps in one call, without Python between them.

    Returns:
        A function of an iterator over distributed batches and the number of steps, an int32 tensor; it returns each
        of the step's metrics with an entry a step.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def steps(batches: Iterator[Batch], num_steps: tf.Tensor) -> Metrics:
        first = step(next(batches))

        def one_more(_: tf.Tensor) -> Metrics:
            return step(next(batches))

        types = {name: value.dtype for name, value in first.items()}
        rest = tf.map_fn(one_more, tf.range(1, num_steps), fn_output_signature=types, parallel_iterations=1)
        return {name: tf.concat([[value], rest[name]], axis=0) for name, value in first.items()}

    return steps


def make_evaluation_step(strategy: tf.distribute.Strategy, model: keras.Model) -> Step:
    """Makes the function that evaluates one distributed batch.

    Returns:
        A function of a distributed batch; it returns sums over the images of the global batch, blanks left out:
        `images`, how many they are; `loss`; `top5_accuracy`, how many have their label among the five largest logits;
        and `counts`, `[3, classes]`: how many are of each class, are taken for it, and both.
    """

    def replica_step(batch: Batch) -> Metrics:
        filled = {name: values[0] for name, values in cut(batch, 1).items()}
        present, labels = presence(filled), filled["labels"]
        logits = tf.cast(model(filled["images"], training=False), tf.float32)
        num_classes = logits.shape[-1]
        best = tf.argmax(logits, axis=-1)

        def count(classes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
            return tf.math.unsorted_segment_sum(weights, classes, num_classes)

        both = present * tf.cast(best == labels, tf.float32)
        among_best = tf.math.in_top_k(labels, logits, min(TOP, num_classes))
        sums = {
            "images": tf.reduce_sum(present),
            "loss": tf.reduce_sum(cross_entropies(filled, logits)),
            "top5_accuracy": tf.reduce_sum(present * tf.cast(among_best, tf.float32)),
            "counts": tf.stack([count(labels, present), count(best, present), count(labels, both)]),
        }
        summed: Metrics = sum_over_replicas(sums)
        return summed

    return _distributed(strategy, replica_step)


def _distributed(strategy: tf.distribute.Strategy, replica_step: Step) -> Step:
    @tf.function(reduce_retracing=True, autograph=False)
    def step(batch: Batch) -> Metrics:
        results = strategy.run(replica_step, args=(batch,))
        return {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}

    return step
