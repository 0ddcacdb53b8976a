"""Views against crops and windows cut by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu import PReLU
from training.evaluation.protocols import five_crops, mirrored_too, score_crops, score_windows


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0, 255, size=(11, 13, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """Without padding, so that a window of the map is a window of the image; its strides multiply to 2."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = PReLU()(keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(images)))
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(x))
    return keras.Model(images, keras.layers.Dense(5)(x))


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def test_ten_views_are_ten_explicit_crops(image):
    views = mirrored_too(five_crops(tf.constant(image), 8, 6)).numpy()
    crops = [image[:8, :6], image[:8, 7:], image[3:, :6], image[3:, 7:], image[1:9, 3:9]]
    np.testing.assert_array_equal(views, crops + [np.fliplr(crop) for crop in crops])


def test_crops_of_an_image_that_is_just_large_enough_are_one(image):
    crops = five_crops(tf.constant(image), 11, 13)
    np.testing.assert_array_equal(crops, [image] * 5)


def test_score_of_views_is_their_mean(model):
    views = np.random.default_rng(1).uniform(0, 255, size=(3, 10, 8, 8, 3)).astype("float32")
    scores = score_crops(model)(tf.constant(views))
    expected = [softmax(model(each).numpy().astype("float64")).mean(axis=0) for each in views]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_dense_score_is_the_mean_over_windows_cut_by_hand(model, image):
    windows = [image[top : top + 8, left : left + 8] for top in (0, 2) for left in (0, 2, 4)]
    windows += [np.fliplr(image)[top : top + 8, left : left + 8] for top in (0, 2) for left in (0, 2, 4)]
    expected = softmax(model(np.stack(windows)).numpy().astype("float64")).mean(axis=0)
    scores = score_windows(model)(mirrored_too(tf.constant(image)[None]))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
