import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.config import Config
from training.data import augmentation, mixing, randaugment
from training.data.augmentation import COLOUR_DIRECTIONS, COLOUR_VARIANCES, make_augmentation, random_crop, shifted


def seeds(count):
    return [tf.constant([7, index], tf.int64) for index in range(count)]


def drawn(seed, number):
    """The seed of one of an image's draws."""
    return seed + tf.constant([number << 48, 0], tf.int64)


def photo(height, width, detail=24):
    """A picture with as much detail as a photo has at twice its size."""
    rng = np.random.default_rng(height)
    return np.clip(
        tf.image.resize(rng.normal(128, 60, (height // detail + 2, width // detail + 2, 3)), (height, width)), 0, 255
    ).astype(np.uint8)


def jpeg(pixels, mode="RGB"):
    with io.BytesIO() as file:
        Image.fromarray(pixels).convert(mode).save(file, "JPEG", quality=92)
        return file.getvalue()


def test_crop_is_a_shift_of_the_padded_image():
    image = np.random.default_rng(0).uniform(1, 255, (6, 6, 1)).astype("float32")
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    shifts = [padded[top : top + 6, left : left + 6].tobytes() for top in range(5) for left in range(5)]
    seen = {
        shifted(tf.constant(image), tf.constant([0, seed], tf.int64), Config(crop_padding=2)).numpy().tobytes()
        for seed in range(60)
    }
    assert seen <= set(shifts)
    assert len(seen) > 15


def test_flip_mirrors_about_half():
    image = tf.constant(np.arange(12, dtype="float32").reshape(2, 6, 1))
    flips = [
        bool(shifted(image, tf.constant([1, seed], tf.int64), Config(flip=True))[0, 0, 0] == 5) for seed in range(100)
    ]
    assert 30 < sum(flips) < 70


def jitter(low, high, flip=False):
    return Config(scale_min=low, scale_max=high, flip=flip)


def reference_crop(image, size, scales, seed):
    """The crop in NumPy: the draws are the seed's, what follows from them is computed anew."""
    scale, *place, _ = tf.random.stateless_uniform([4], drawn(seed, 1)).numpy()
    shorter = scales[0] + int(np.floor(scale * (scales[1] - scales[0] + 1)))
    side = int(np.round(np.float32(size * min(image.shape[:2])) / np.float32(shorter)))
    top, left = (int(np.floor(p * (length - side + 1))) for p, length in zip(place, image.shape[:2], strict=True))
    return bilinear(image[top : top + side, left : left + side].astype("float64"), size)


def bilinear(image, size):
    """Two taps on each axis, at the pixels' centres."""
    for axis in (0, 1):
        length = image.shape[axis]
        at = (np.arange(size) + 0.5) * length / size - 0.5
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if each == axis else 1 for each in range(3)])
        low, high = np.clip([low, low + 1], 0, length - 1)
        image = np.take(image, low, axis) * (1 - share) + np.take(image, high, axis) * share
    return image


@pytest.mark.parametrize("kind", ["png", "jpeg", "cmyk", "grey"])
def test_scale_jitter_and_crop_are_the_references(kind):
    pixels = photo(75, 100)
    modes = {"jpeg": "RGB", "cmyk": "CMYK", "grey": "L"}
    encoded = tf.io.encode_png(pixels) if kind == "png" else jpeg(pixels, modes[kind])
    whole = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
    for seed in seeds(20):
        crop = random_crop(encoded, (40, 40, 3), jitter(46, 92), seed).numpy()
        np.testing.assert_allclose(crop, reference_crop(whole, 40, (46, 92), seed), atol=1e-3)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_crops_are_mirrored_about_half_of_the_time(kind):
    pixels = photo(75, 100)
    encoded = tf.io.encode_png(pixels) if kind == "png" else jpeg(pixels)
    mirrored = 0
    for seed in seeds(60):
        plain, flipped = (random_crop(encoded, (40, 40, 3), jitter(46, 92, flip), seed) for flip in (False, True))
        same = np.allclose(flipped, plain, atol=1e-3)
        assert same or np.allclose(flipped, plain[:, ::-1], atol=1e-3)
        mirrored += not same
    assert 18 < mirrored < 42


@pytest.mark.slow
def test_scales_and_places_are_drawn_evenly():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    encoded = tf.io.encode_png(ramp)
    crops = [random_crop(encoded, (50, 50, 3), jitter(50, 100), seed).numpy()[0, :, 0] for seed in seeds(300)]
    # 49 pixels of a crop span 49 * 200 / scale levels
    scales = np.array([49 * 200 / (crop[-2] - crop[1]) * 47 / 49 for crop in crops])
    assert scales.min() >= 49
    assert scales.max() <= 102
    assert abs(scales.mean() - 75) < 3
    starts = np.array([crop[0] for crop in crops])[scales > 90]
    assert starts.min() < 10
    assert starts.max() > 75


@pytest.fixture
def ratios(monkeypatch):
    """The fractions of their size at which JPEGs are decoded meanwhile."""
    found, decode = [], tf.io.decode_and_crop_jpeg

    def decode_and_note(*args, ratio, **rest):
        found.append(ratio)
        return decode(*args, ratio=ratio, **rest)

    monkeypatch.setattr(tf.io, "decode_and_crop_jpeg", decode_and_note)
    return found


@pytest.mark.parametrize(("side", "ratio"), [(420, 1), (800, 2), (1600, 4), (3300, 8)])
def test_large_jpeg_is_cropped_at_a_fraction_of_its_size(side, ratio, ratios):
    pixels = photo(side, side, detail=side // 8)
    (seed,) = seeds(1)
    crop = random_crop(jpeg(pixels), (224, 224, 3), jitter(400, 400), seed).numpy()
    assert ratios == [ratio]
    whole = tf.image.resize(pixels, (400, 400), antialias=True).numpy()
    place = tf.random.stateless_uniform([4], drawn(seed, 1)).numpy()[1:3]
    top, left = np.floor(place * 177).astype(int)
    assert np.abs(crop - whole[top : top + 224, left : left + 224]).mean() < 3


def test_large_png_is_antialiased():
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[::2] = 200
    crop = random_crop(tf.io.encode_png(stripes), (50, 50, 3), jitter(60, 60), seeds(1)[0]).numpy()
    np.testing.assert_allclose(crop, 100, atol=8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_inception_crop_is_a_resized_window_of_the_image(kind):
    rows, columns = (np.broadcast_to(each, (120, 160)) for each in np.ogrid[:120, :160])
    pixels = np.stack([rows, columns, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    encoded = tf.io.encode_png(pixels) if kind == "png" else tf.io.encode_jpeg(pixels, quality=100)
    shares, ratios = [], []
    for seed in seeds(150):
        crop = random_crop(encoded, (40, 40, 3), Config(crop_area_min=0.1), seed).numpy()
        # Levels are places: 37 pixels without the border's span so many rows and columns of the source.
        height, width = (crop[38, 20, 0] - crop[1, 20, 0]) * 40 / 37, (crop[20, 38, 1] - crop[20, 1, 1]) * 40 / 37
        assert crop[..., 0].max() < 122
        assert np.abs(np.diff(crop[2:-2, 20, 0]) - height / 40).max() < 3
        shares.append(height * width / (120 * 160))
        ratios.append(width / height)
    assert 0.08 < min(shares) < 0.2
    assert 0.75 < max(shares) < 1.05
    assert 0.7 < min(ratios) < 0.82
    assert 1.2 < max(ratios) < 1.4


def test_inception_crop_of_an_area_of_one_is_the_image():
    pixels = photo(40, 40)
    crop = random_crop(tf.io.encode_png(pixels), (40, 40, 3), Config(crop_area_min=1.0), seeds(1)[0])
    np.testing.assert_array_equal(crop, pixels)


def test_large_jpeg_gets_its_inception_crop_at_a_fraction_of_its_size(ratios):
    pixels = photo(900, 900, detail=100)
    crop = random_crop(jpeg(pixels), (112, 112, 3), Config(crop_area_min=0.9), seeds(1)[0]).numpy()
    assert ratios == [4]
    assert np.abs(crop - tf.image.resize(pixels, (112, 112), antialias=True)).mean() < 25


def test_colours_move_along_the_principal_components():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    augmented = make_augmentation(Config(pca_colour=0.1), (4, 5, 3))
    for seed in seeds(3):
        amounts = tf.random.stateless_normal([3], drawn(seed, 2), stddev=0.1).numpy()
        shift = np.array(COLOUR_DIRECTIONS) @ (amounts * np.array(COLOUR_VARIANCES)) * 255
        np.testing.assert_allclose(augmented(tf.io.encode_png(image), seed), image + shift, rtol=1e-5)


def test_colour_directions_are_orthonormal():
    directions = np.array(COLOUR_DIRECTIONS)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-3)


@pytest.mark.slow
def test_erased_rectangles_hold_noise_in_the_given_share_of_the_images():
    grey = np.full((40, 60, 3), 7, np.uint8)
    augmented = tf.function(make_augmentation(Config(random_erasing=0.5), grey.shape))
    shares = []
    for seed in seeds(200):
        image = augmented(tf.io.encode_png(grey), seed).numpy()
        erased = (image != 7).any(axis=-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        shares.append(erased.mean())
        if shares[-1]:
            assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert 0 <= image.min() <= image.max() <= 255
    shares = np.array(shares)
    assert 70 < (shares > 0).sum() < 130
    assert shares.max() <= 0.36
    assert 0.12 < shares[shares > 0].mean() < 0.22


def test_the_same_seed_gives_the_same_image_and_another_another():
    encoded = tf.io.encode_png(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    config = Config(crop_padding=2, flip=True, pca_colour=0.1, random_erasing=1.0)
    augmented = make_augmentation(config, (16, 16, 3))
    first, again, other = (augmented(encoded, seeds(9)[index]).numpy() for index in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_images_are_the_same_within_a_graph():
    """The pipeline's own way; the other tests call the functions by themselves."""
    config = Config(scale_min=46, scale_max=92, flip=True, pca_colour=0.1, random_erasing=0.5)
    encoded = jpeg(photo(75, 100))
    augmented = make_augmentation(config, (40, 40, 3))
    batches = tf.data.Dataset.from_tensor_slices(tf.stack(seeds(6))).map(lambda seed: augmented(encoded, seed))
    for seed, image in zip(seeds(6), batches, strict=True):
        np.testing.assert_allclose(image, augmented(encoded, seed), atol=1e-3)


def test_every_draw_has_a_number_of_its_own():
    modules = (augmentation, mixing, randaugment)
    found = [value for module in modules for name, value in vars(module).items() if name[1:].isupper()]
    numbers = [value for value in found if type(value) is int and value >= 1 << 48]
    assert len(set(numbers)) == len(numbers) >= 10
