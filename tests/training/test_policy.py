import numpy as np
import pytest
import tensorflow as tf

from training.config import Config
from training.data.datasets import open_image_set
from training.data.pipeline import train_batches
from training.data.randaugment import RandAugment, seeded
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


def stretched(image, drawn):
    low, high = image.min((0, 1)), image.max((0, 1))
    return (image - low) * 255 / (high - low)


REFERENCES = {
    "RandomBrightness": brighter,
    "RandomColorDegeneration": coloured,
    "RandomContrast": contrasted,
    "RandomSharpness": sharpened,
    "RandomPosterization": posterized,
    "AutoContrast": stretched,
}


def layer_of(operation):
    """The layer of an operation, if it is one's."""
    return operation.args[0] if operation.args else None


def salted(operation, seed):
    """The seed of the layer's generator."""
    return seed + tf.constant([operation.keywords["salt"], 0], tf.int64)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_colours_are_the_references(name, image):
    operations = RandAugment(1, 0.8).operations
    (operation,) = (each for each in operations if type(layer_of(each)).__name__ == name)
    layer, changed = layer_of(operation), 0
    for number in range(4):
        seed = SEED + number
        with seeded(layer, salted(operation, seed)):
            drawn = layer.get_random_transformation(image[None], training=True)
        expected = np.clip(REFERENCES[name](image.astype("float64"), drawn), 0, 255)
        actual = operation(tf.constant(image), seed).numpy()
        np.testing.assert_allclose(actual, expected, atol=0.02)
        changed += not np.allclose(actual, image, atol=0.5)
    assert changed >= 3


def test_solarization_inverts_from_a_threshold_up():
    levels = np.tile(np.arange(256, dtype="float32")[:, None, None], (1, 1, 3))
    lowest = []
    for number in range(40):
        solarized = RandAugment(1, 0.8).operations[-1](tf.constant(levels), SEED + number).numpy()
        inverted = solarized != levels
        lowest.append(np.flatnonzero(inverted.any((1, 2))).min(initial=256))
        expected = np.where(np.arange(256)[:, None, None] < lowest[-1], levels, 255 - levels)
        np.testing.assert_array_equal(solarized, expected)
    assert 51 <= min(lowest) < 75
    assert max(lowest) > 230


def test_equalized_levels_are_spread_evenly(image):
    dark = tf.constant(np.round(image / 4))
    (operation,) = (each for each in RandAugment(1, 0.5).operations if type(layer_of(each)).__name__ == "Equalization")
    levels = np.sort(operation(dark, SEED).numpy().ravel())
    even = np.linspace(0, 255, levels.size)
    assert np.abs(levels - even).mean() < 12


def test_the_weakest_leaves_images_nearly_alone(image):
    for operation in RandAugment(1, 1e-3).operations:
        name = type(layer_of(operation)).__name__
        result = operation(tf.constant(image), SEED).numpy()
        assert name in ("AutoContrast", "Equalization") or np.abs(result - image).mean() < 1, name


@pytest.mark.slow
def test_the_strongest_rotates_by_thirty_degrees():
    (layer,) = (
        layer for layer in map(layer_of, RandAugment(1, 1.0).operations) if type(layer).__name__ == "RandomRotation"
    )
    angles = []
    for number in range(60):
        with seeded(layer, SEED + number):
            angles.append(float(layer.get_random_transformation(np.zeros((1, 8, 8, 3)), True)["angle"][0]))
    assert 25 < max(np.abs(angles)) <= 30
    assert min(angles) < -20
    assert max(angles) > 20


@pytest.mark.slow
def test_all_are_drawn_evenly_and_in_turn():
    policy = RandAugment(2, 0.5)
    policy.operations = [lambda image, _, bit=bit: image + 2.0**bit for bit in range(len(policy.operations))]
    assert len(policy.operations) == 11
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
    apply = tf.function(RandAugment(2, 0.5))
    first, again, other = (apply(tf.constant(image), SEED + number).numpy() for number in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    policy = RandAugment(2, 0.5)
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
