import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu import PReLU
from tests.training.test_steps import batch_of, spread
from training.config import Config
from training.distribute.strategy import make_strategy
from training.errors import InputError
from training.step.batch_statistics import training_network
from training.step.steps import make_train_step
from training.step.update import make_updater

CONFIG = Config(learning_rate=0.1, warmup_steps=0, deterministic=False, weight_decay=0.01)


@pytest.fixture(scope="module")
def strategies():
    return {num: make_strategy(num) for num in (1, 2)}


def flat():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, use_bias=False, kernel_initializer=keras.initializers.HeNormal(seed=1))(inputs)
    x = PReLU()(keras.layers.BatchNormalization(momentum=0.5)(x))
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(5, kernel_initializer=keras.initializers.HeNormal(seed=2))(x))


def vectors():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(8, use_bias=False, kernel_initializer=keras.initializers.HeNormal(seed=1))(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, keras.layers.Dense(5, kernel_initializer=keras.initializers.HeNormal(seed=2))(x))


def nested():
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(3, 3, use_bias=False, kernel_initializer=keras.initializers.HeNormal(seed=1)),
            keras.layers.BatchNormalization(center=False),
        ]
    )
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.GlobalAveragePooling2D()(inner(keras.layers.BatchNormalization(center=False, scale=False)(inputs)))
    return keras.Model(inputs, keras.layers.Dense(5, kernel_initializer=keras.initializers.HeNormal(seed=2))(x))


def train(strategy, make, batches, config=CONFIG):
    with strategy.scope():
        model = make()
        updater = make_updater(config, model)
    step = make_train_step(strategy, model, updater, config)
    for batch, sizes in batches:
        step(spread(strategy, batch, sizes if strategy.num_replicas_in_sync > 1 else None))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("make", [flat, nested, vectors])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_replicas_end_with_the_weights_and_statistics_of_one(strategies, make, optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer, learning_rate=0.01)
    batches = [(batch_of([1] * 6), None), (batch_of([1] * 5 + [0] * 3, 1), None), (batch_of([1] * 5, 2), [4, 1])]
    one, two = (train(strategies[num], make, batches, config).get_weights() for num in (1, 2))
    for weights, expected in zip(two, one, strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [flat, nested])
def test_blank_images_do_not_count(strategies, make):
    batch = batch_of([1] * 5 + [0] * 3)
    alone = {name: value[:5] for name, value in batch.items()}
    batch["images"][5:] = 255
    filled, expected = (train(strategies[1], make, [(each, None)]).get_weights() for each in (batch, alone))
    for weights, value in zip(filled, expected, strict=True):
        np.testing.assert_allclose(weights, value, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_moving_statistics_are_those_of_the_whole_batch(strategies, num_replicas):
    batch = batch_of([1] * 6)
    model = train(strategies[num_replicas], nested, [(batch, None)])
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    images = batch["images"].astype(np.float64)
    np.testing.assert_allclose(first.moving_mean, [0.01 * images.mean()], rtol=1e-5)
    np.testing.assert_allclose(first.moving_variance, [0.99 + 0.01 * images.var()], rtol=1e-5)


@pytest.mark.slow
def test_one_step_is_kerass_where_no_image_is_blank(strategies):
    batch = batch_of([1] * 6)
    config = dataclasses.replace(CONFIG, momentum=0.0, weight_decay=0.0)
    trained = train(strategies[1], flat, [(batch, None)], config)
    model = flat()
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(batch["images"], batch["labels"])
    for weights, expected in zip(trained.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=2e-5)


def test_frozen_layers_use_and_keep_their_moving_statistics(strategies):
    def frozen():
        model = flat()
        for layer in model.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        return model

    before, model = flat(), train(strategies[1], frozen, [(batch_of([1] * 6), None)])
    for layer, other in zip(model.layers, before.layers, strict=True):
        if isinstance(layer, keras.layers.BatchNormalization):
            for weights, expected in zip(layer.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(weights, expected)
    assert training_network(model) is model


def test_network_without_normalization_stays_itself():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert training_network(model) is model


class Hidden(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = keras.layers.BatchNormalization(name="inner")

    def call(self, x, training=None):
        return self.inner(x, training=training)


def test_normalization_inside_a_layer_is_refused():
    inputs = keras.Input((3,))
    with pytest.raises(InputError, match="inner lies inside a layer that shows no graph"):
        training_network(keras.Model(inputs, Hidden()(inputs)))


@pytest.mark.parametrize("changes", [{"gradient_accumulation_steps": 2}, {"xla": True}])
def test_what_keeps_replicas_from_exchanging_is_refused(strategies, changes):
    with strategies[2].scope():
        model = flat()
        updater = make_updater(CONFIG, model)
    with pytest.raises(InputError, match="needs the statistics of the whole batch"):
        make_train_step(strategies[2], model, updater, dataclasses.replace(CONFIG, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_learns(strategies, precision):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        config = dataclasses.replace(CONFIG, precision=precision, learning_rate=0.02)
        for num in (1, 2):
            model = train(strategies[num], flat, [(batch_of([1] * 6), None)] * 3, config)
            assert all(np.isfinite(weights).all() for weights in model.get_weights())
            assert model.layers[2].moving_mean.dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


def test_xla_on_one_device_gives_the_same(strategies):
    batches = [(batch_of([1] * 5 + [0]), None)]
    plain, compiled = (
        train(strategies[1], flat, batches, dataclasses.replace(CONFIG, xla=xla)).get_weights() for xla in (False, True)
    )
    for weights, expected in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=2e-5)


def test_tensor_names_do_not_matter():
    inputs = keras.Input((3,), name="present")
    model = keras.Model(inputs, keras.layers.BatchNormalization()(inputs))
    network = training_network(model)
    assert [tuple(each.shape) for each in network.inputs] == [(None, 3), (None,)]
    outputs = network([tf.constant([[1.0, 2, 3], [3, 2, 1], [9, 9, 9]]), tf.constant([0.5, 0.5, 0])], training=True)
    np.testing.assert_allclose(outputs[:2], [[-1, 0, 1], [1, 0, -1]], atol=1e-3)
