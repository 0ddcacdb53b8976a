import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import precision_recall_fscore_support

from keras_prelu.networks.small import small_network
from training.config import Config
from training.distribute.strategy import make_strategy
from training.step.evaluation import evaluate
from training.step.moving_average import MovingAverage
from training.step.steps import make_evaluation_step, make_train_step, repeated
from training.step.update import make_updater

CONFIG = Config(learning_rate=0.1, warmup_steps=0, deterministic=False)
EVERYTHING = {
    "gradient_accumulation_steps": 3,
    "clip_norm": 0.5,
    "label_smoothing": 0.1,
    "weight_decay": 0.01,
    "ema_decay": 0.9,
}


@pytest.fixture(scope="module")
def strategies():
    return {num: make_strategy(num) for num in (1, 2)}


def build(strategy, config=CONFIG, make_network=None):
    with strategy.scope():
        model = (make_network or network)()
        return (
            model,
            make_updater(config, model),
            MovingAverage(model.trainable_variables, config.ema_decay) if config.ema_decay else None,
        )


def network():
    return small_network((8, 8, 1), 5, filters=(4, 6), convolutions=1, seed=1)


def batch_of(weights, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.uniform(0, 255, (len(weights), 8, 8, 1)).astype("float32"),
        "labels": rng.integers(0, 5, len(weights)),
        "weights": np.array(weights, "float32"),
    }


def spread(strategy, batch, sizes=None):
    """Gives each replica its rows: as many as `sizes` says, or equally many."""
    shares = strategy.num_replicas_in_sync
    ends = np.cumsum(sizes)[:-1] if sizes else shares

    def share(context):
        return {
            name: tf.constant(np.split(value, ends)[context.replica_id_in_sync_group]) for name, value in batch.items()
        }

    return strategy.experimental_distribute_values_from_function(share)


def train(strategy, batches, config=CONFIG, sizes=None, make_network=None):
    model, optimizer, average = build(strategy, config, make_network)
    step = make_train_step(strategy, model, optimizer, config, average)
    metrics = [
        {name: float(value) for name, value in step(spread(strategy, batch, sizes)).items()} for batch in batches
    ]
    averaged = [] if average is None else [value.numpy() for value in average.values]
    return model.get_weights() + averaged, metrics


def assert_alike(results, expected, atol=1e-6):
    for value, weights in zip(results[0], expected[0], strict=True):
        np.testing.assert_allclose(value, weights, atol=atol)
    for figures, expected_figures in zip(results[1], expected[1], strict=True):
        assert figures == pytest.approx(expected_figures, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "weights", "sizes"),
    [
        ({}, [1] * 8, None),
        ({}, [1] * 5 + [0] * 3, None),
        ({}, [1] * 5, [3, 2]),
        ({}, [1] * 3, [3, 0]),
        (EVERYTHING, [1] * 8, None),
        (EVERYTHING, [1] * 5, [3, 2]),
        (EVERYTHING, [1] * 3, [0, 3]),
    ],
    ids=[
        *("even", "filled-up", "ragged", "one-without-rows"),
        *("even-with-everything", "ragged-with-everything", "one-without-rows-with-everything"),
    ],
)
def test_two_replicas_end_with_the_weights_of_one(strategies, changes, weights, sizes):
    config = dataclasses.replace(CONFIG, **changes)
    batches = [batch_of(weights, seed) for seed in range(3)]
    one = train(strategies[1], batches, dataclasses.replace(config, gradient_accumulation_steps=1))
    assert_alike(train(strategies[2], batches, config, sizes), one)


@pytest.mark.slow
def test_two_replicas_with_xla_end_with_the_weights_of_one_without(strategies):
    config = dataclasses.replace(CONFIG, **EVERYTHING)
    batches = [batch_of([1] * 5, seed) for seed in range(3)]
    one = train(strategies[1], batches, config)
    assert_alike(train(strategies[2], batches, dataclasses.replace(config, xla=True), [3, 2]), one, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("field", ["clip_norm", "label_smoothing", "weight_decay"])
def test_each_field_changes_what_is_learnt(strategies, field):
    batches = [batch_of([1] * 4)] * 2
    plain, _ = train(strategies[1], batches)
    changed, _ = train(strategies[1], batches, dataclasses.replace(CONFIG, **{field: EVERYTHING[field]}))
    assert max(np.abs(one - other).max() for one, other in zip(plain, changed, strict=True)) > 1e-4


@pytest.mark.slow
def test_images_of_weight_zero_do_not_count(strategies):
    batch = batch_of([1] * 5 + [0] * 3)
    alone = {name: value[:5] for name, value in batch.items()}
    assert_alike(train(strategies[1], [batch]), train(strategies[1], [alone]))


def test_first_step_is_gradient_descent_on_the_mean_cross_entropy(strategies):
    batch = batch_of([1, 1, 1, 0])
    model, _, _ = build(strategies[1])
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
    norm = np.sqrt(sum((gradient.numpy() ** 2).sum() for gradient in gradients))
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def regularized_network():
    """Decays as `weight_decay` does, by Keras's regularizers."""
    model = network()
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.regularizer = keras.regularizers.L2(EVERYTHING["weight_decay"] / 2)
    return model


@pytest.mark.parametrize(
    ("num_replicas", "changes"),
    [(1, {}), (2, {}), (2, {"gradient_accumulation_steps": 3})],
    ids=["one", "two-replicas", "micro-batches"],
)
def test_regularizers_of_a_network_are_trained_with(strategies, num_replicas, changes):
    batches = [batch_of([1] * 5, seed) for seed in range(3)]
    decayed = train(strategies[1], batches, dataclasses.replace(CONFIG, weight_decay=EVERYTHING["weight_decay"]))[0]
    config = dataclasses.replace(CONFIG, **changes)
    found = train(strategies[num_replicas], batches, config, [3, 2][:num_replicas], regularized_network)[0]
    for value, weights in zip(found, decayed, strict=True):
        np.testing.assert_allclose(value, weights, atol=1e-6)


def test_smoothed_loss_is_that_of_the_smoothed_labels(strategies):
    batch = batch_of([1] * 4)
    model, _, _ = build(strategies[1])
    labels = 0.8 * np.eye(5)[batch["labels"]] + 0.2 / 5
    expected = keras.losses.categorical_crossentropy(labels, model(batch["images"]), from_logits=True)
    _, (metrics,) = train(strategies[1], [batch], dataclasses.replace(CONFIG, label_smoothing=0.2))
    assert metrics["loss"] == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_several_steps_in_a_call_end_with_the_weights_of_single_ones(strategies, num_replicas):
    strategy = strategies[num_replicas]
    config = dataclasses.replace(CONFIG, **EVERYTHING)
    batches = [batch_of([1] * 5 + [0], seed) for seed in range(5)]
    single = train(strategy, batches, config)

    def shares(context):
        rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        return tf.data.Dataset.from_tensor_slices(rows).batch(6 // context.num_replicas_in_sync)

    model, optimizer, average = build(strategy, config)
    steps = repeated(make_train_step(strategy, model, optimizer, config, average))
    iterator = iter(strategy.distribute_datasets_from_function(shares))
    calls = [steps(iterator, tf.constant(count)) for count in (4, 1)]
    metrics = [
        {name: float(values[index]) for name, values in call.items()}
        for call in calls
        for index in range(len(call["loss"]))
    ]
    weights = model.get_weights() + [value.numpy() for value in average.values]
    assert_alike((weights, metrics), single)


def masks_of(strategy, shown, config=CONFIG, first_step=0, steps=2):
    """The dropout masks of one image of a batch, a step each: a kernel moves where its input was kept.

    The inputs are ones, and all other images have weight 0: what they keep moves nothing.
    """

    def dropping():
        inputs = keras.Input((8, 8, 1))
        kept = keras.layers.Dropout(0.5)(keras.layers.Flatten()(inputs))
        return keras.Model(inputs, keras.layers.Dense(5)(kept))

    batch = {"images": np.ones((4, 8, 8, 1), "float32"), "labels": np.arange(4), "weights": np.eye(4)[shown]}
    batch["weights"] = batch["weights"].astype("float32")
    model, optimizer, _ = build(strategy, dataclasses.replace(config, momentum=0.0), dropping)
    optimizer.optimizer.iterations.assign(first_step)
    step = make_train_step(strategy, model, optimizer, config)
    kernels = [model.get_weights()[0]]
    for _ in range(steps):
        step(spread(strategy, batch))
        kernels.append(model.get_weights()[0])
    return [(after != before).any(axis=1).tolist() for before, after in itertools.pairwise(kernels)]


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, True], ids=["", "xla"])
def test_replicas_and_steps_draw_masks_of_their_own(strategies, xla):
    config = dataclasses.replace(CONFIG, xla=xla)
    masks = masks_of(strategies[2], 0, config) + masks_of(strategies[2], 2, config)  # both are their replica's first
    assert len({tuple(mask) for mask in masks}) == 4
    assert all(16 < sum(mask) < 48 for mask in masks)


def test_parts_draw_masks_of_their_own(strategies):
    config = dataclasses.replace(CONFIG, gradient_accumulation_steps=2)
    assert masks_of(strategies[1], 0, config) != masks_of(strategies[1], 2, config)


@pytest.mark.slow
def test_resumed_run_draws_the_masks_it_would_have_drawn(strategies):
    assert masks_of(strategies[2], 2, first_step=1, steps=1) == masks_of(strategies[2], 2)[1:]


def test_another_seed_draws_other_masks(strategies):
    assert masks_of(strategies[1], 0) != masks_of(strategies[1], 0, dataclasses.replace(CONFIG, seed=1))


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("sizes", [None, [6, 0]], ids=["even", "second-without-rows"])
def test_evaluation_is_the_weighted_mean(strategies, num_replicas, sizes):
    strategy = strategies[num_replicas]
    batch = batch_of([1, 1, 1, 1, 1, 0])
    model, _, _ = build(strategy)
    logits = np.asarray(model(batch["images"]), "float64")[:5]
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    step = make_evaluation_step(strategy, model)
    figures = evaluate(step, [spread(strategy, batch, sizes[:num_replicas] if sizes else None)])
    assert figures["loss"] == pytest.approx(-log_softmax[np.arange(5), batch["labels"][:5]].mean(), rel=1e-5)
    answers, labels = logits.argmax(axis=1), batch["labels"][:5]
    assert figures["accuracy"] == pytest.approx((answers == labels).mean())
    precision, recall, f1, _ = precision_recall_fscore_support(labels, answers, average="macro", zero_division=0)
    assert [figures[name] for name in ("precision", "recall", "f1")] == pytest.approx([precision, recall, f1])
