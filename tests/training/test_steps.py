import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu.networks import small_network
from training.steps import make_evaluation_step, make_train_step
from training.strategy import make_strategy


@pytest.fixture(scope="module")
def strategies():
    return {num: make_strategy(num) for num in (1, 2)}


def network_and_optimizer(strategy):
    with strategy.scope():
        model = small_network((8, 8, 1), 5, filters=(4, 6), convolutions=1, seed=1)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(model.trainable_variables)
    return model, optimizer


def batch_of(weights, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.uniform(0, 255, (len(weights), 8, 8, 1)).astype("float32"),
        "labels": rng.integers(0, 5, len(weights)),
        "weights": np.array(weights, "float32"),
    }


def spread(strategy, batch):
    shares = strategy.num_replicas_in_sync

    def share(context):
        return {
            name: tf.constant(np.split(value, shares)[context.replica_id_in_sync_group])
            for name, value in batch.items()
        }

    return strategy.experimental_distribute_values_from_function(share)


def train(strategy, batches):
    model, optimizer = network_and_optimizer(strategy)
    step = make_train_step(strategy, model, optimizer)
    metrics = [{name: float(value) for name, value in step(spread(strategy, batch)).items()} for batch in batches]
    return model.get_weights(), metrics


@pytest.mark.parametrize(
    "weights",
    [[1] * 8, [1] * 5 + [0] * 3, [1, 1] + [0] * 6],
    ids=["even", "ragged", "a-replica-without-images"],
)
def test_two_replicas_end_with_the_weights_of_one(strategies, weights):
    batches = [batch_of(weights, seed) for seed in range(3)]
    one, metrics_of_one = train(strategies[1], batches)
    two, metrics_of_two = train(strategies[2], batches)
    for expected, value in zip(one, two, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)
    for expected, figures in zip(metrics_of_one, metrics_of_two, strict=True):
        assert figures == pytest.approx(expected, abs=1e-6)


def test_images_of_weight_zero_do_not_count(strategies):
    batch = batch_of([1] * 5 + [0] * 3)
    alone = {name: value[:5] for name, value in batch.items()}
    filled, _ = train(strategies[1], [batch])
    expected, _ = train(strategies[1], [alone])
    for value, weights in zip(filled, expected, strict=True):
        np.testing.assert_allclose(value, weights, atol=1e-6)


def test_first_step_is_gradient_descent_on_the_mean_cross_entropy(strategies):
    batch = batch_of([1, 1, 1, 0])
    model, _ = network_and_optimizer(strategies[1])
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(
            batch["labels"][:3], model(batch["images"][:3]), from_logits=True
        )
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    expected = [weights - 0.1 * gradient for weights, gradient in zip(model.get_weights(), gradients, strict=True)]
    trained, (metrics,) = train(strategies[1], [batch])
    for value, weights in zip(trained, expected, strict=True):
        np.testing.assert_allclose(value, weights, atol=1e-6)
    assert metrics["loss"] == pytest.approx(float(loss), abs=1e-6)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_evaluation_is_the_weighted_mean(strategies, num_replicas):
    strategy = strategies[num_replicas]
    batch = batch_of([1, 1, 1, 1, 1, 0])
    model, _ = network_and_optimizer(strategy)
    logits = np.asarray(model(batch["images"]), "float64")[:5]
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    figures = make_evaluation_step(strategy, model)(spread(strategy, batch))
    assert float(figures["loss"]) == pytest.approx(-log_softmax[np.arange(5), batch["labels"][:5]].mean(), rel=1e-5)
    assert float(figures["accuracy"]) == pytest.approx((logits.argmax(axis=1) == batch["labels"][:5]).mean())
    assert float(figures["count"]) == 5
