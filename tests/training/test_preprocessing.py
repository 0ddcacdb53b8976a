import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.data.preprocessing import decode_image

SHAPE = (8, 8, 1)


def smooth(height, width, channels=3, seed=0):
    """A picture without fine detail, which JPEG keeps within a few levels."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (4, 4, channels))
    return np.round(tf.image.resize(coarse, (height, width)).numpy()).astype(np.uint8)


def encode(image, kind, **options):
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def test_decoding_covers_and_crops_the_centre():
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = 200
    decoded = decode_image(tf.io.encode_png(image), (10, 10, 3)).numpy()
    np.testing.assert_allclose(decoded[:, 2:-2], 200, atol=1e-3)
    assert decoded.shape == (10, 10, 3)


def test_decoding_an_image_of_the_right_size_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
    np.testing.assert_array_equal(decode_image(tf.io.encode_png(image), SHAPE), image)


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (49, 97)])
def test_shorter_side_is_scaled_and_the_centre_cropped(height, width):
    image = smooth(height, width)
    factor = 48 / min(height, width)
    whole = tf.image.resize(image, (round(height * factor), round(width * factor)), antialias=True).numpy()
    top, left = (whole.shape[0] - 32) // 2, (whole.shape[1] - 32) // 2
    decoded = decode_image(tf.io.encode_png(image), (32, 32, 3), scale=48)
    np.testing.assert_array_equal(decoded, whole[top : top + 32, left : left + 32])


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("jpeg", 3), ("png", 0), ("gif", 9), ("bmp", 0), ("cmyk jpeg", 3), ("16-bit png", 1), ("palette png", 9)],
)
def test_every_format_gives_the_pictures_colours(kind, tolerance):
    pixels = smooth(40, 40, 1 if kind == "16-bit png" else 3)
    picture = Image.fromarray(pixels.squeeze())
    encoded = {
        "jpeg": lambda: encode(picture, "JPEG", quality=95),
        "png": lambda: encode(picture, "PNG"),
        "gif": lambda: encode(picture.quantize(256), "GIF"),
        "bmp": lambda: encode(picture, "BMP"),
        "cmyk jpeg": lambda: encode(picture.convert("CMYK"), "JPEG", quality=95),
        "16-bit png": lambda: encode(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
        "palette png": lambda: encode(picture.quantize(256), "PNG"),
    }[kind]()
    decoded = decode_image(encoded, (40, 40, 3)).numpy()
    assert np.abs(decoded - pixels).mean() <= tolerance


def test_grey_photo_gives_three_equal_channels():
    encoded = encode(Image.fromarray(smooth(20, 20, 1)[..., 0]), "JPEG")
    decoded = decode_image(encoded, (20, 20, 3)).numpy()
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])


def test_large_jpeg_is_decoded_at_a_fraction_of_its_size():
    image = smooth(904, 1200)
    encoded = encode(Image.fromarray(image), "JPEG", quality=95)
    whole = tf.image.resize(tf.io.decode_jpeg(encoded), (56, round(1200 / 904 * 56)), antialias=True).numpy()
    left = (whole.shape[1] - 56) // 2
    decoded = decode_image(encoded, (56, 56, 3)).numpy()
    assert 0 < np.abs(decoded - whole[:, left : left + 56]).mean() < 1


@pytest.mark.slow
def test_photo_with_sides_of_20000_pixels_is_decoded():
    encoded = encode(Image.new("L", (20_000, 20_000), 90), "JPEG")
    np.testing.assert_allclose(decode_image(encoded, (8, 8, 1)), 90, atol=1)


def test_strip_of_20000_pixels_is_cropped_before_it_is_scaled():
    strip = np.zeros((1, 20_000), np.uint8)
    strip[:, 9_999:10_001] = 200
    decoded = decode_image(tf.io.encode_png(strip[..., None]), (256, 256, 1)).numpy()
    assert decoded.max() == 200
