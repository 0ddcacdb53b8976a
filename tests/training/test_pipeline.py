import dataclasses
import gc
import os

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow.python.data.ops.multi_device_iterator_ops import OwnedMultiDeviceIterator

from training.data import pipeline
from training.data.datasets import Digits, open_image_set
from training.data.pipeline import evaluation_batches, repeated_without_end, train_batches
from training.data.preprocessing import decode_image
from training.distribute.strategy import make_strategy
from training.errors import InputError
from training.evaluation.views import view_batches
from training.experiment import build_experiment

SHAPE = (8, 8, 1)


@pytest.fixture
def digits():
    return open_image_set("digits")


def take(dataset, count):
    return [{name: value.numpy() for name, value in batch.items()} for batch in dataset.take(count)]


def decoded(images, split):
    return images.encoded(split).map(lambda encoded, label: (decode_image(encoded, SHAPE), label)).as_numpy_iterator()


def test_digits_are_scikit_learns(digits):
    images, labels = zip(*digits.encoded("test").as_numpy_iterator(), strict=True)
    pixels = np.stack([tf.io.decode_image(image).numpy() for image in images])[..., 0]
    source = load_digits()
    expected = np.round(source.images[4::5] * 255 / 16)
    order, source_order = np.lexsort(pixels.reshape(359, -1).T), np.lexsort(expected.reshape(359, -1).T)
    np.testing.assert_array_equal(pixels[order], expected[source_order])
    np.testing.assert_array_equal(np.array(labels)[order], source.target[4::5][source_order])
    assert digits.num_examples("train") == 1438


@pytest.mark.slow
def test_an_epoch_holds_every_image_once_and_the_last_batch_is_filled_up(digits, small_config):
    batches = take(train_batches(digits, dataclasses.replace(small_config, crop_padding=0), SHAPE, 1, 0), 2)
    weights = np.concatenate([batch["weights"] for batch in batches])
    images = np.concatenate([batch["images"] for batch in batches])[weights == 1]
    expected = digits.encoded("train").map(lambda encoded, _: decode_image(encoded, SHAPE)).as_numpy_iterator()
    assert weights.sum() == 1438
    assert weights.size == 2000
    assert sorted(map(np.ndarray.tobytes, images)) == sorted(map(np.ndarray.tobytes, expected))


@pytest.mark.slow
def test_every_epoch_has_another_order(digits, small_config):
    first, _, second, _ = take(train_batches(digits, small_config, SHAPE, 1, 0), 4)
    assert not np.array_equal(first["labels"], second["labels"])


@pytest.fixture
def by_index(tmp_path):
    Digits(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    return open_image_set("digits", str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "train[10:60%]+test"])
def test_set_prepared_as_array_record_is_read_by_index_and_gives_the_same_batches(
    digits, by_index, small_config, split
):
    config = dataclasses.replace(small_config, train_split=split)
    assert "_in_memory" not in by_index.open(split).fetch.__qualname__
    for read, held in zip(
        take(train_batches(by_index, config, SHAPE, 2, 1), 4),
        take(train_batches(digits, config, SHAPE, 2, 1), 4),
        strict=True,
    ):
        for name in held:
            np.testing.assert_array_equal(read[name], held[name], err_msg=name)


@pytest.mark.slow
def test_damaged_record_is_left_out_and_named(by_index, small_config, tmp_path, capfd):
    (path,) = tmp_path.glob("digits/*/digits-test.array_record*")
    content = bytearray(path.read_bytes())
    content[20_000] ^= 255  # of 359 records, in the first half of the file; padding follows
    path.write_bytes(content)
    config = dataclasses.replace(small_config, max_unreadable=1.0)
    (batch,) = take(evaluation_batches(by_index, config, SHAPE, 1), 1)
    assert 300 < batch["weights"].sum() < 359
    assert " of test, which cannot be read (" in capfd.readouterr().err


def test_split_that_memory_cannot_hold_is_named(digits, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    with pytest.raises(InputError, match=r"`tfds build digits --file_format=array_record`"):
        digits.open("train")


@pytest.mark.slow
def test_orders_of_epochs_are_permutations_that_have_nothing_in_common(digits, small_config):
    """Over the whole set, as it is; TensorFlow's index_shuffle lets orders of two epochs correlate by up to 0.7."""
    config = dataclasses.replace(small_config, crop_padding=0)
    numbers = {image.tobytes(): index for index, (image, _) in enumerate(decoded(digits, "train"))}
    orders = []
    for step in range(0, 12, 2):
        batches = take(train_batches(digits, config, SHAPE, 1, step), 2)
        images = np.concatenate([batch["images"] for batch in batches])[:1438]
        orders.append([numbers[image.tobytes()] for image in images])
    assert all(len(set(order)) == len(numbers) for order in orders)
    correlations = np.corrcoef([*orders, range(1438)]) - np.eye(7)
    assert np.abs(correlations).max() < 0.11  # four standard deviations of a correlation by chance


@pytest.fixture
def global_seed():
    tf.random.set_seed(0)
    yield
    tf.random.set_seed(None)


@pytest.mark.slow
def test_the_global_seed_changes_nothing(digits, small_config, request):
    (expected,) = take(train_batches(digits, small_config, SHAPE, 1, 0), 1)
    request.getfixturevalue("global_seed")
    (seeded,) = take(train_batches(digits, small_config, SHAPE, 1, 0), 1)
    np.testing.assert_array_equal(seeded["images"], expected["images"])


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(digits, small_config, step):
    whole = take(train_batches(digits, small_config, SHAPE, 1, 0), 5)[step:]
    resumed = take(train_batches(digits, small_config, SHAPE, 1, step), 5 - step)
    for expected, batch in zip(whole, resumed, strict=True):
        for name in expected:
            np.testing.assert_array_equal(batch[name], expected[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("num_replicas", [2, 3])
def test_replicas_share_what_one_device_gets(digits, small_config, num_replicas):
    whole = take(train_batches(digits, small_config, SHAPE, 1, 0), 2)
    parts = take(train_batches(digits, small_config, SHAPE, num_replicas, 0), 2 * num_replicas)
    for index, expected in enumerate(whole):
        shares = parts[index * num_replicas : (index + 1) * num_replicas]
        assert len({share["labels"].size for share in shares}) == 1
        joined = np.concatenate([share["images"] for share in shares])[: len(expected["images"])]
        np.testing.assert_array_equal(joined, expected["images"])
        assert sum(share["weights"].sum() for share in shares) == expected["weights"].sum()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [719, 1000, 2], ids=["even", "ragged", "fewer-than-replicas"])
def test_workers_have_the_parts_of_their_own_replicas(digits, small_config, batch_size):
    config = dataclasses.replace(small_config, batch_size=batch_size)
    steps, num_replicas, num_workers, local = 3, 4, 2, 2
    whole = take(train_batches(digits, config, SHAPE, num_replicas, 1), steps * num_replicas)
    for worker in range(num_workers):
        own = range(worker * local, (worker + 1) * local)
        parts = take(train_batches(digits, config, SHAPE, num_replicas, 1, own), steps * local)
        expected = [whole[step * num_replicas + replica] for step in range(steps) for replica in own]
        for part, value in zip(parts, expected, strict=True):
            for name in value:
                np.testing.assert_array_equal(part[name], value[name], err_msg=name)


@pytest.mark.slow
def test_workers_share_the_test_split(digits, small_config):
    whole = take(evaluation_batches(digits, small_config, SHAPE, 2), 10)
    for worker in range(2):
        own = take(evaluation_batches(digits, small_config, SHAPE, 2, range(worker, worker + 1)), 10)
        for part, expected in zip(own, whole[worker::2], strict=True):
            for name in expected:
                np.testing.assert_array_equal(part[name], expected[name], err_msg=name)


@pytest.mark.slow
def test_only_own_images_are_decoded(digits, small_config, monkeypatch):
    decoded = []

    def counted(encoded, shape, scale):
        def count(encoded):
            decoded.append(encoded.numpy())
            return decode_image(encoded, shape, scale)

        return tf.ensure_shape(tf.py_function(count, [encoded], tf.float32), shape)

    monkeypatch.setattr(pipeline, "decode_image", counted)
    config = dataclasses.replace(small_config, batch_size=100)
    count = sum(1 for _ in evaluation_batches(digits, config, SHAPE, 2, range(1, 2)))
    # 359 images in batches of 100: the second replica has 50 of each full one and 9 of the last
    assert (count, len(decoded)) == (4, 159)


def test_training_batches_have_no_end_that_workers_would_ask_for(digits, small_config):
    assert train_batches(digits, small_config, SHAPE, 2, 0).cardinality() == tf.data.INFINITE_CARDINALITY


@pytest.mark.slow
def test_split_that_is_evaluated_while_training_can_be_another_than_the_test_split(digits, small_config):
    config = dataclasses.replace(small_config, val_split="train[:100]")
    (batch,) = take(evaluation_batches(digits, config, SHAPE, 1), 2)
    first = np.stack(list(digits.encoded("train[:100]").map(lambda encoded, _: decode_image(encoded, SHAPE))))
    np.testing.assert_array_equal(batch["images"][:100], first)
    assert batch["weights"].sum() == 100


@pytest.mark.slow
def test_evaluation_keeps_order_and_does_not_augment(digits, small_config):
    (batch,) = take(evaluation_batches(digits, small_config, SHAPE, 1), 2)
    expected = np.stack(list(digits.encoded("test").map(lambda encoded, _: decode_image(encoded, SHAPE))))
    np.testing.assert_array_equal(batch["images"][:359], expected)
    assert batch["weights"].sum() == 359


@pytest.mark.parametrize("name", ["train", "evaluation", "views", "encoded"])
def test_no_dataset_is_tuned_by_a_thread_that_may_outlive_it(name, digits, small_config):
    """Its end may come a minute late; docs in training/data/parallel.py."""
    datasets = {
        "train": lambda: train_batches(digits, small_config, SHAPE, 1, 0).enumerate().map(lambda _, batch: batch),
        "evaluation": lambda: repeated_without_end(evaluation_batches(digits, small_config, SHAPE, 1)),
        "views": lambda: view_batches(digits, "test", lambda encoded: decode_image(encoded, SHAPE)[None], 8),
        "encoded": lambda: digits.encoded("test").take(3),
    }
    assert datasets[name]().options().autotune.enabled is False


@pytest.mark.parametrize("cpu_devices", [1, 2])
def test_batches_reach_the_cpus_without_a_dataset_that_tunes_itself(cpu_devices, small_config):
    before = {id(each) for each in gc.get_objects() if type(each) is OwnedMultiDeviceIterator}
    experiment = build_experiment(small_config, make_strategy(cpu_devices))
    iterator = iter(experiment.train_batches(0))
    found = [each for each in gc.get_objects() if type(each) is OwnedMultiDeviceIterator and id(each) not in before]
    assert iterator is not None
    assert not found
