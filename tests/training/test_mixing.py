"""mixup, CutMix and class weights, from the pipeline to the loss."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from training.config import Config
from training.data.datasets import open_image_set
from training.data.mixing import mix
from training.data.pipeline import train_batches
from training.errors import InputError
from training.step.gradients import cross_entropies

SHAPE = (8, 8, 1)
MIXUP = {"mixup_alpha": 0.4}
CUTMIX = {"cutmix_alpha": 1.0}


@pytest.fixture
def digits():
    return open_image_set("digits")


@pytest.fixture
def config(small_config):
    return dataclasses.replace(small_config, batch_size=480, crop_padding=0)  # 2 batches and 478 images in an epoch


def take(dataset, count):
    return [{name: value.numpy() for name, value in batch.items()} for batch in dataset.take(count)]


def swapped(values):
    return values.reshape(-1, 2, *values.shape[1:])[:, ::-1].reshape(values.shape)


def batch_of(rng, number, side=8):
    return {
        "images": tf.constant(rng.uniform(0, 255, (number, side, side, 3)), tf.float32),
        "labels": tf.constant(rng.integers(0, 5, number), tf.int64),
        "weights": tf.ones(number),
    }


def seeds(number, start=0):
    return tf.stack(
        [tf.fill([number], tf.constant(3, tf.int64)), tf.range(start, start + number, dtype=tf.int64)], axis=1
    )


@pytest.mark.slow
def test_mixup_takes_the_mean_of_neighbours(digits, config):
    (plain,) = take(train_batches(digits, config, SHAPE, 1, 0), 1)
    (mixed,) = take(train_batches(digits, dataclasses.replace(config, **MIXUP), SHAPE, 1, 0), 1)
    own = mixed["mix"].astype("float64")
    expected = own[:, None, None, None] * plain["images"] + (1 - own[:, None, None, None]) * swapped(plain["images"])
    np.testing.assert_allclose(mixed["images"], expected, atol=1e-3)
    np.testing.assert_array_equal(mixed["labels"], plain["labels"])
    np.testing.assert_array_equal(mixed["other_labels"], swapped(plain["labels"]))
    np.testing.assert_array_equal(mixed["mix"], swapped(mixed["mix"]))
    assert len(np.unique(mixed["mix"])) > 200


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_weights_of_mixup_have_the_beta_distribution(alpha):
    number = 4000
    config = Config(batch_size=number, mixup_alpha=alpha)
    own = mix(batch_of(np.random.default_rng(0), number, side=1), seeds(number), config)["mix"].numpy()[::2]
    assert abs(own.mean() - 0.5) < 0.03
    assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert 0 <= own.min() <= own.max() <= 1


def test_cutmix_replaces_a_rectangle_by_the_neighbours():
    number = 200
    batch = batch_of(np.random.default_rng(0), number, side=16)
    mixed = mix(batch, seeds(number), Config(batch_size=number, **CUTMIX))
    images, others = batch["images"].numpy(), swapped(batch["images"].numpy())
    inside = (mixed["images"].numpy() == others).all(axis=-1)
    np.testing.assert_array_equal(np.where(inside[..., None], others, images), mixed["images"])
    np.testing.assert_allclose(mixed["mix"], 1 - inside.mean((1, 2)), atol=1e-6)
    for each in inside:
        rows, columns = np.flatnonzero(each.any(1)), np.flatnonzero(each.any(0))
        if rows.size:
            assert each[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    centres = np.argwhere(inside).mean(0)[1:]
    np.testing.assert_allclose(centres, 7.5, atol=1)
    # Beta(1, 1) would leave a mean of 1/2; what is cut off at the borders makes it more.
    assert 0.5 < mixed["mix"].numpy().mean() < 0.75


def test_with_both_each_pair_takes_one_of_the_two():
    number = 400
    batch = batch_of(np.random.default_rng(0), number)
    mixed = mix(batch, seeds(number), Config(batch_size=number, mixup_alpha=8.0, cutmix_alpha=1.0))
    is_own = (mixed["images"].numpy() == batch["images"].numpy()).all(axis=-1)
    is_mixup = ~is_own.any((1, 2))
    assert 0.35 < is_mixup.mean() < 0.65


@pytest.mark.slow
@pytest.mark.parametrize("fields", [MIXUP, CUTMIX, MIXUP | CUTMIX], ids=["mixup", "cutmix", "both"])
def test_replicas_workers_and_a_resumed_run_see_the_same_mixtures(digits, config, fields):
    config = dataclasses.replace(config, **fields, class_weights="balanced")
    whole = take(train_batches(digits, config, SHAPE, 1, 0), 5)
    parts = take(train_batches(digits, config, SHAPE, 2, 2), 6)
    own = take(train_batches(digits, config, SHAPE, 2, 2, range(1, 2)), 3)
    for index, expected in enumerate(whole[2:]):
        for name, values in expected.items():
            joined = np.concatenate([part[name] for part in parts[2 * index : 2 * index + 2]])
            np.testing.assert_array_equal(joined, values, err_msg=name)
            np.testing.assert_array_equal(own[index][name], values[240:], err_msg=name)


@pytest.mark.parametrize("fields", [MIXUP, CUTMIX])
def test_image_beside_a_blank_stays_as_it_is(fields):
    batch = batch_of(np.random.default_rng(0), 6)
    batch["weights"] = tf.constant([1.0, 0, 0, 1, 0, 0])
    mixed = mix(batch, seeds(6), Config(batch_size=6, **fields))
    np.testing.assert_array_equal(mixed["images"], batch["images"])
    np.testing.assert_array_equal(mixed["weights"], batch["weights"])
    np.testing.assert_array_equal(mixed["mix"], np.ones(6))


def test_loss_is_that_of_the_soft_labels_with_their_classes_weights():
    rng = np.random.default_rng(0)
    class_weights = np.array([0.5, 1, 2, 4, 8])
    batch = batch_of(rng, 40)
    batch["weights"] = tf.constant(class_weights[batch["labels"]], tf.float32)
    mixed = mix(batch, seeds(40), Config(batch_size=40, mixup_alpha=1.0))
    plain = mix(batch | {"weights": tf.ones(40)}, seeds(40), Config(batch_size=40, mixup_alpha=1.0))
    own, labels = plain["mix"].numpy().astype("float64"), np.eye(5)[batch["labels"]]
    soft = (own[:, None] * labels + (1 - own[:, None]) * swapped(labels)) * class_weights
    logits = rng.normal(0, 3, (40, 5))
    expected = -(soft * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)
    np.testing.assert_allclose(cross_entropies(mixed, tf.constant(logits)), expected, rtol=1e-5)
    np.testing.assert_allclose(mixed["weights"], soft.sum(1), rtol=1e-5)


@pytest.mark.slow
def test_balanced_weights_give_each_class_the_same_sum(digits, config):
    batches = take(train_batches(digits, dataclasses.replace(config, class_weights="balanced"), SHAPE, 1, 0), 3)
    labels, weights = (np.concatenate([batch[name] for batch in batches]) for name in ("labels", "weights"))
    sums = np.bincount(labels, weights)
    np.testing.assert_allclose(sums, 143.8, rtol=1e-5)
    assert (weights > 0).sum() == 1438


@pytest.mark.slow
def test_class_weights_can_be_given(digits, config):
    text = ",".join(str(1 + number) for number in range(10))
    (batch,) = take(train_batches(digits, dataclasses.replace(config, class_weights=text), SHAPE, 1, 0), 1)
    np.testing.assert_array_equal(batch["weights"], 1 + batch["labels"])


@pytest.mark.parametrize(
    ("fields", "replicas", "message"),
    [
        ({"mixup_alpha": 0.2, "batch_size": 18}, 4, "batch_size is 18, but with mixup_alpha, .* a multiple of 8"),
        ({"cutmix_alpha": 0.2, "batch_size": 3}, 1, "batch_size is 3, but with cutmix_alpha, .* a multiple of 2"),
        ({"class_weights": "1,2,3"}, 1, "class_weights has 3 numbers, but digits has 10 classes"),
    ],
)
def test_what_cannot_be_mixed_or_weighted_is_named(digits, config, fields, replicas, message):
    with pytest.raises(InputError, match=message):
        train_batches(digits, dataclasses.replace(config, **fields), SHAPE, replicas, 0)


def test_mixing_needs_two_classes(digits, config):
    one_class = dataclasses.replace(digits, labels=("0",))
    with pytest.raises(InputError, match="mixup_alpha mixes images of different classes, but digits has one"):
        train_batches(one_class, dataclasses.replace(config, **MIXUP), SHAPE, 1, 0)
