"""Views against crops and windows cut by hand; batches of equal shapes; replicas."""

import dataclasses
import io

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_prelu import PReLU
from training.classifier import Classifier
from training.config import Config
from training.data.datasets import open_image_set
from training.distribute.strategy import make_strategy
from training.evaluation.views import (
    Protocol,
    covered_by_windows,
    five_crops,
    make_view,
    on_all_devices,
    score,
    view_batches,
)

CONFIG = Config(dataset="image_folder", image_size=8, flip=True, test_split="val")
SIZES = [(9 + 3 * (index % 4), 9 + 2 * (index % 7)) for index in range(40)]


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0, 255, size=(11, 13, 3)).astype("float32")


def make_network():
    """Without padding, so that a window of the activations is a window of the image; its strides multiply to 2."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = PReLU()(keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(images)))
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(x))
    return keras.Model(images, keras.layers.Dense(2)(x))


@pytest.fixture(scope="module")
def classifier():
    return Classifier(make_network(), CONFIG, ("a", "b"), (8, 8, 3))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Forty images of many sizes, two of them no images."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in "ab":
            (folder / split / label).mkdir(parents=True)
        for index, (height, width) in enumerate(SIZES):
            path = folder / split / "ab"[index % 2] / f"{index:02}.png"
            pixels = rng.integers(0, 255, (height, width, 3), "uint8")
            PIL.Image.fromarray(pixels).save(path)
            if index in (5, 17):
                path.write_bytes(b"none")
    return open_image_set("image_folder", str(folder))


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def pixels_of(encoded):
    return np.asarray(PIL.Image.open(io.BytesIO(encoded)), "float32")


def expected_scores(classifier, images, see):
    """The mean softmax over the crops that a function of pixels in NumPy cuts, image by image."""
    scores = []
    for encoded, _ in images.encoded("val").as_numpy_iterator():
        if encoded != b"none":
            crops = np.stack(see(pixels_of(encoded)))
            crops = np.concatenate([crops, crops[:, :, ::-1]])
            scores.append(softmax(classifier.network(crops).numpy().astype("float64")).mean(axis=0))
    return np.stack(scores)


def scaled(pixels, shorter_side):
    size = np.round(np.array(pixels.shape[:2]) * shorter_side / min(pixels.shape[:2])).astype(int)
    return tf.image.resize(pixels, size, antialias=True).numpy()


def windows(pixels):
    """All windows of 8 x 8 pixels at a distance of 2, in the middle of the image."""
    (top, left), (rows, columns) = (
        np.divmod(np.array(pixels.shape[:2]) % 2, 2)[0],
        (np.array(pixels.shape[:2]) - 8) // 2 + 1,
    )
    return [
        pixels[top + 2 * row : top + 2 * row + 8, left + 2 * column : left + 2 * column + 8]
        for row in range(rows)
        for column in range(columns)
    ]


def test_five_crops_are_explicit_crops(image):
    crops = [image[:8, :6], image[:8, 7:], image[3:, :6], image[3:, 7:], image[1:9, 3:9]]
    np.testing.assert_array_equal(five_crops(tf.constant(image), 8, 6), crops)


def test_crops_of_an_image_that_is_just_large_enough_are_one(image):
    np.testing.assert_array_equal(five_crops(tf.constant(image), 11, 13), [image] * 5)


def test_ten_crops_score_the_mean_over_crops_cut_by_hand(classifier, images):
    def see(pixels):
        pixels = scaled(pixels, 9)
        down, across = pixels.shape[0] - 8, pixels.shape[1] - 8
        corners = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
        return [pixels[top : top + 8, left : left + 8] for top, left in corners]

    found = score(classifier, images, Protocol(views="ten", scales=(9,)))
    np.testing.assert_allclose(found.scores, expected_scores(classifier, images, see), atol=1e-6)


@pytest.mark.parametrize("scales", [(9,), (9, 12, 15)])
def test_dense_scores_the_mean_over_windows_cut_by_hand_in_the_split_s_order(classifier, images, scales):
    expected = [expected_scores(classifier, images, lambda pixels, s=s: windows(scaled(pixels, s))) for s in scales]
    found = score(classifier, images, Protocol(views="dense", scales=scales))
    np.testing.assert_allclose(found.scores, np.mean(expected, axis=0), atol=1e-6)
    readable = [
        (i, label) for i, (image, label) in enumerate(images.encoded("val").as_numpy_iterator()) if image != b"none"
    ]
    assert list(zip(found.positions, found.labels, strict=True)) == readable
    assert found.num_unreadable == 2


@pytest.mark.parametrize(("views_name", "scales"), [("centre", ()), ("ten", (9,)), ("dense", (9, 12))])
def test_two_devices_score_as_one_does(classifier, images, views_name, scales):
    protocol = Protocol(views=views_name, scales=scales)
    expected = score(classifier, images, protocol)
    with make_strategy(devices="CPU:0,CPU:1").scope():
        mirrored = dataclasses.replace(classifier, network=make_network())
        mirrored.network.set_weights(classifier.network.get_weights())
        found = score(mirrored, images, protocol)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-7)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.positions, expected.positions)


def test_middle_covered_by_windows_loses_none_of_them():
    image = tf.reshape(tf.range(11.0 * 14), (11, 14, 1))
    np.testing.assert_array_equal(covered_by_windows(image, (5, 6), (4, 3)), image[1:10, 1:13])
    np.testing.assert_array_equal(covered_by_windows(image, (11, 14), (4, 3)), image)


@pytest.mark.parametrize(("strides", "pooling"), [(1, 2), (2, 2), (3, 2), (4, 4)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_stride_is_the_product_of_the_network_s(strides, pooling, padding):
    images = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(2, 5, strides=strides, padding=padding)(images)
    x = keras.layers.MaxPooling2D(pooling, padding=padding)(x)
    network = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    dense = Classifier(network, CONFIG, ("a", "b"), (64, 64, 3)).dense()
    assert dense.stride() == (strides * pooling, strides * pooling)
    rows = [dense.network.compute_output_shape((1, 64 + extra, 64, 3))[1] for extra in range(0, 61, dense.stride()[0])]
    assert rows == list(range(1, 1 + len(rows)))


def test_dense_network_sees_few_shapes_and_is_traced_once(classifier, images):
    """Image by image it would see every size that there is."""
    traced = []

    class Recorded(keras.layers.Layer):
        def call(self, inputs):
            traced.append(tuple(inputs.shape))
            return inputs

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=3)(Recorded()(inputs))
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    dense = dataclasses.replace(classifier, network=network).dense()
    batches = [views.numpy() for _, views, _ in view_batches(images, "val", make_view(dense, "dense", 12), 8)]
    sizes = {scaled(pixels_of(e), 12).shape[:2] for e, _ in images.encoded("val").as_numpy_iterator() if e != b"none"}
    shapes = {batch.shape[2:4] for batch in batches}
    assert (len(sizes), len(shapes)) == (17, 10)
    score_views, _ = on_all_devices(dense), traced.clear()
    for batch in batches:
        score_views(batch)
    assert traced == [(None, None, None, 3)]
