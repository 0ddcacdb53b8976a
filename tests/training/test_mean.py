import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_prelu.networks.fully_convolutional import fully_convolutional
from training.classifier import load_network
from training.config import Config
from training.data.datasets import open_image_set
from training.data.mean import MeanSubtraction, mean_image, set_mean
from training.distribute.strategy import make_strategy
from training.errors import InputError
from training.experiment import build_experiment
from training.network import make_network
from training.run.folder import Run
from training.train import fit

SHAPE = (8, 8, 1)


@pytest.fixture
def config(small_config):
    return dataclasses.replace(small_config, subtract_mean=True, ema_decay=0.5)


@pytest.fixture
def pixels():
    images = open_image_set("digits").encoded("train").map(lambda encoded, _: tf.io.decode_png(encoded))
    return np.stack(list(images)).astype("float64")


@pytest.mark.slow
def test_mean_is_that_of_the_training_images(config, pixels):
    mean = mean_image(open_image_set("digits"), config, SHAPE)
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-6)


@pytest.mark.slow
def test_mean_is_computed_once_and_then_read(config, tmp_path):
    images, path = open_image_set("digits"), tmp_path / "mean.npy"
    mean = mean_image(images, config, SHAPE, path)
    np.testing.assert_array_equal(np.load(path), mean)
    np.save(path, mean + 1)
    np.testing.assert_array_equal(mean_image(images, config, SHAPE, path), mean + 1)
    assert [each.name for each in tmp_path.iterdir()] == ["mean.npy"]


def test_unreadable_images_do_not_count(tmp_path):
    for label, level in (("dark", 10), ("light", 30)):
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "train" / label / "1.png").write_bytes(
            tf.io.encode_png(np.full((4, 4, 3), level, np.uint8)).numpy()
        )
    (tmp_path / "train/dark/2.png").write_bytes(b"")
    images = open_image_set("image_folder", str(tmp_path))
    np.testing.assert_array_equal(mean_image(images, Config(), (4, 4, 3)), np.full((4, 4, 3), 20))
    for path in tmp_path.glob("train/*/1.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no image of train can be read"):
        mean_image(images, Config(), (4, 4, 3))


@pytest.mark.slow
@pytest.mark.parametrize(("network", "shape", "middle"), [("small", (8, 8, 3), 127.5), ("14-layer", (93, 93, 3), 0)])
def test_network_sees_images_without_their_mean(network, shape, middle):
    config = Config(network=network, filters=(4,), subtract_mean=True)
    ours, plain = (make_network(each, shape, 5) for each in (config, dataclasses.replace(config, subtract_mean=False)))
    rng = np.random.default_rng(0)
    images, mean = rng.uniform(0, 255, (2, *shape)).astype("float32"), rng.integers(0, 256, shape).astype("float32")
    set_mean(ours, mean)
    np.testing.assert_allclose(ours(images), plain(images - mean + middle), atol=1e-5)


def test_images_of_another_size_lose_each_channels_mean():
    layer = MeanSubtraction((2, 2, 2), offset=1.0)
    layer.build((None, None, None, 2))
    layer.mean.assign(np.arange(8).reshape(2, 2, 2))
    np.testing.assert_allclose(layer(np.zeros((1, 3, 3, 2), "float32"))[0, 0, 0], [1 - 3, 1 - 4])


def test_dense_evaluation_takes_networks_with_a_mean():
    network = make_network(Config(filters=(4,), subtract_mean=True), SHAPE, 3)
    assert fully_convolutional(network)(np.zeros((1, 12, 12, 1), "float32")).shape == (1, 5, 5, 3)


@pytest.mark.slow
def test_mean_is_kept_with_the_run(config, tmp_path):
    fit(config, tmp_path)
    expected = mean_image(open_image_set("digits"), config, SHAPE)
    np.testing.assert_array_equal(np.load(Run(tmp_path).mean), expected)
    np.testing.assert_array_equal(load_network(Run(tmp_path)).get_layer("mean").mean, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("num_replicas", "accumulate"), [(1, 1), (2, 1), (2, 2)])
def test_steps_neither_move_the_mean_nor_sum_it_over_replicas(config, num_replicas, accumulate):
    config = dataclasses.replace(config, gradient_accumulation_steps=accumulate)
    experiment = build_experiment(config, make_strategy(num_replicas))
    experiment.load_mean(0)
    step, batches = experiment.train_step(), iter(experiment.train_batches(0))
    assert np.array(experiment.model.get_layer("mean").mean).any()
    mean = np.full(SHAPE, 3e38, "float32")  # float32 cannot hold twice as much
    set_mean(experiment.model, mean)
    for _ in range(2):
        step(next(batches))
    np.testing.assert_array_equal(experiment.model.get_layer("mean").mean, mean)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale_min": 6, "scale_max": 9}, "scale_min is 6, but must be at least 8"),
        ({"test_scale": 7}, "test_scale is 7, but must be at least 8"),
        ({"mixup_alpha": 0.2, "batch_size": 7}, "batch_size is 7, but with mixup_alpha"),
        ({"pca_colour": 0.1}, "pca_colour alters red, green and blue, but the images of digits have 1"),
    ],
)
def test_augmentation_that_does_not_fit_is_named(config, fields, message):
    with pytest.raises(InputError, match=message):
        build_experiment(dataclasses.replace(config, **fields), make_strategy(1))
