import numpy as np
import pytest
import tensorflow as tf

from training.config import Config
from training.data.datasets import open_image_set
from training.data.pipeline import train_batches
from training.data.randaugment import Policy, _SeedsOf, _transformed
from training.errors import InputError

SEED = tf.constant([7, 11], tf.int64)


@pytest.fixture(scope="module")
def image():
    coarse = np.random.default_rng(0).uniform(20, 230, (6, 8, 3))
    return np.clip(np.round(tf.image.resize(coarse, (24, 32))), 0, 254).astype("float32")


def grey(image):
    return (image @ [0.2989, 0.587, 0.114])[..., None]


def coloured(image, drawn):
    return image + float(drawn["factor"].numpy().squeeze()) * (grey(image) - image)


def brighter(image, drawn):
    return image + float(drawn["rgb_delta"].numpy().squeeze())


def contrasted(image, drawn):
    mean = image.mean((0, 1))
    return (image - mean) * float(drawn["contrast_factor"].numpy().squeeze()) + mean


def sharpened(image, drawn):
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    height, width, _ = image.shape
    windows = [padded[top : top + height, left : left + width] for top in range(3) for left in range(3)]
    smooth = (sum(windows) + 4 * image) / 13
    return image + (1 - 2 * float(drawn["factor"].numpy().squeeze())) * (smooth - image)


def posterized(image, drawn):
    step = 2 ** int(drawn["shift_factor"].numpy().squeeze())
    return np.floor(image / step) * step


def solarized(image, drawn):
    return np.where(image < float(drawn["thresholds"].numpy().squeeze()), image, 255 - image)


def stretched(image, drawn):
    low, high = image.min((0, 1)), image.max((0, 1))
    return (image - low) * 255 / (high - low)


REFERENCES = {
    "RandomBrightness": brighter,
    "RandomColorDegeneration": coloured,
    "RandomContrast": contrasted,
    "RandomSharpness": sharpened,
    "RandomPosterization": posterized,
    "Solarization": solarized,
    "AutoContrast": stretched,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_colours_are_the_references(name, image):
    (operation,) = (each for each in Policy(1, 0.8).operations if type(each).__name__ == name)
    changed = 0
    for number in range(4):
        seed = SEED + number
        drawn = operation.get_random_transformation(image[None], training=True, seed=_SeedsOf(seed))
        expected = np.clip(REFERENCES[name](image.astype("float64"), drawn), 0, 255)
        actual = _transformed(operation, tf.constant(image), seed).numpy()
        np.testing.assert_allclose(actual, expected, atol=0.02)
        changed += not np.allclose(actual, image, atol=0.5)
    assert changed >= 3


def test_equalized_levels_are_spread_evenly(image):
    dark = tf.constant(np.round(image / 4))
    operation = Policy(1, 0.5).operations[-1]
    levels = np.sort(_transformed(operation, dark, SEED).numpy().ravel())
    even = np.linspace(0, 255, levels.size)
    assert np.abs(levels - even).mean() < 12


def test_the_weakest_leaves_images_nearly_alone(image):
    for operation in Policy(1, 1e-3).operations[:9]:
        result = _transformed(operation, tf.constant(image), SEED).numpy()
        assert np.abs(result - image).mean() < 1, type(operation).__name__


def test_the_strongest_rotates_by_thirty_degrees():
    rotation = Policy(1, 1.0).operations[2]
    angles = [
        float(rotation.get_random_transformation(np.zeros((1, 8, 8, 3)), True, seed=_SeedsOf(SEED + n))["angle"][0])
        for n in range(60)
    ]
    assert 25 < max(np.abs(angles)) <= 30
    assert min(angles) < -20
    assert max(angles) > 20


@pytest.mark.slow
def test_all_are_drawn_evenly_and_in_turn(image):
    policy = Policy(2, 0.5)
    marks = [lambda images, _, training, bit=bit: images + 2.0**bit for bit in range(11)]
    for operation, mark in zip(policy.operations, marks, strict=True):
        operation.transform_images = mark
    count = np.zeros(11)
    apply = tf.function(policy)
    for number in range(220):
        total = int(apply(tf.zeros([2, 2, 3]), SEED + number)[0, 0, 0])
        bits = [bit for bit in range(11) if total >> bit & 1]
        # the same one twice carries into the next bit
        count[bits] += 2 / len(bits)
    assert count.sum() == pytest.approx(440)
    assert count.min() > 15
    assert count.max() < 75


@pytest.mark.slow
def test_what_is_drawn_follows_from_the_seed(image):
    apply = tf.function(Policy(2, 0.5))
    first, again, other = (apply(tf.constant(image), SEED + number).numpy() for number in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    policy = Policy(2, 0.5)
    batches = tf.data.Dataset.from_tensors(image).map(lambda each: policy(each, SEED))
    np.testing.assert_allclose(next(iter(batches)), first, atol=1e-3)


@pytest.mark.slow
def test_training_images_go_through_it(tmp_path):
    for label in ("dark", "light"):
        (tmp_path / "train" / label).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        (tmp_path / "train" / label / "1.png").write_bytes(tf.io.encode_png(pixels).numpy())
    images = open_image_set("image_folder", str(tmp_path))
    plain, config = (Config(batch_size=2, deterministic=False, randaugment_num_ops=number) for number in (0, 2))
    batches = [
        next(iter(train_batches(images, each, (8, 8, 3), 1, step)))["images"].numpy()
        for each, step in ((plain, 0), (config, 0), (config, 0), (config, 3))
    ]
    np.testing.assert_array_equal(batches[1], batches[2])
    assert np.abs(batches[1] - batches[0]).mean() > 1
    assert np.abs(batches[3] - batches[1]).mean() > 1


def test_strength_out_of_range_is_refused():
    with pytest.raises(InputError, match="randaugment_magnitude is 2, but must be above 0 and at most 1"):
        Config(randaugment_magnitude=2)
