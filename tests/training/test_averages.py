import keras
import numpy as np
import pytest
import tensorflow as tf

from training.distribute.strategy import make_strategy
from training.step.moving_average import MovingAverage


@pytest.fixture(scope="module", params=[1, 2], ids=["one-replica", "two-replicas"])
def strategy(request):
    return make_strategy(request.param)


def build(strategy, decay=0.9):
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)])
        return model, MovingAverage(model.trainable_variables, decay)


@pytest.mark.parametrize("decay", [0.9, 0.2])
def test_average_is_the_recurrence(strategy, decay):
    model, average = build(strategy, decay)
    update = tf.function(lambda step: strategy.run(average.update, args=(step,)))
    kernel = model.trainable_variables[2]
    expected = kernel.numpy().astype("float64")
    for step in range(5):
        value = np.random.default_rng(step).normal(size=(3, 2)).astype("float32")
        kernel.assign(value)
        update(tf.constant(step, tf.int64))
        kept = min(decay, (2 + step) / (11 + step))
        expected = kept * expected + (1 - kept) * value
        np.testing.assert_allclose(average.values[2].numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(kernel.numpy(), value)


def test_applied_lends_the_average_and_gives_the_weights_back(strategy):
    model, average = build(strategy)
    own = model.get_weights()
    for value in average.values:
        value.assign(tf.fill(value.shape, 0.5))

    def judge():
        with average.applied():
            assert all((weight.numpy() == 0.5).all() for weight in model.trainable_variables)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge()
    for value, weights in zip(model.get_weights(), own, strict=True):
        np.testing.assert_array_equal(value, weights)


def test_variables_are_the_average_alone(strategy):
    model, average = build(strategy)
    assert [variable.shape for variable in average.variables] == [weight.shape for weight in model.trainable_variables]
    for variable in average.variables:
        variable.assign(tf.fill(variable.shape, 2.0))
    average.copy_to_weights()
    assert all((weight.numpy() == 2).all() for weight in model.trainable_variables)
