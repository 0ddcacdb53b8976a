"""Pixels of an image by its header, against TensorFlow's and Pillow's encoders; images too large are not decoded."""

import base64
import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.example import example_pb2

from serving.call import Call
from serving.errors import ServingError
from serving.models.guard import ENDLESS, GuardedRunner, num_pixels

pytestmark = pytest.mark.xdist_group("serving")

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
SIZE = 37 * 53


def encoded(kind, **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def animated(kind, frames):
    images = [Image.fromarray(np.roll(PIXELS, number, 0)) for number in range(frames)]
    file = io.BytesIO()
    images[0].save(file, kind, save_all=True, append_images=images[1:])
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x010E] = "a description " * 100
JPEG = tf.io.encode_jpeg(PIXELS).numpy()
IMAGES = {
    "png": (tf.io.encode_png(PIXELS).numpy(), SIZE),
    "png-16-bit": (tf.io.encode_png(PIXELS.astype(np.uint16)).numpy(), SIZE),
    "jpeg": (JPEG, SIZE),
    "jpeg-progressive": (tf.io.encode_jpeg(PIXELS, progressive=True).numpy(), SIZE),
    "jpeg-with-much-before": (encoded("JPEG", exif=EXIF, comment=b"c" * 60_000), SIZE),
    "jpeg-with-fill-bytes": (JPEG[:2] + b"\xff\xff" + JPEG[2:], SIZE),
    "jpeg-with-rubbish-between": (JPEG[:20] + b"abc\xff\x00d" + JPEG[20:], SIZE),
    "gif": (encoded("GIF"), SIZE),
    "gif-of-5-frames": (animated("GIF", 5), 5 * SIZE),
    "bmp": (encoded("BMP"), SIZE),
    "webp": (encoded("WEBP"), SIZE),
    "webp-lossless": (encoded("WEBP", lossless=True), SIZE),
    "webp-of-4-frames": (animated("WEBP", 4), 4 * SIZE),
    "text": (b"BMW and other makes of cars, and more", None),
    "empty": (b"", None),
    "numbers": (PIXELS.tobytes(), None),
}


@pytest.mark.parametrize(("data", "pixels"), IMAGES.values(), ids=IMAGES)
def test_pixels(data, pixels):
    assert num_pixels(data) == pixels


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_image_that_ends_too_early_raises_nothing(kind):
    data = encoded(kind)
    for end in range(3, 600):
        assert num_pixels(data[:end]) in (None, 0, SIZE)


def test_jpeg_of_endless_parts_counts_as_too_large():
    comment = b"\xff\xfe\x00\x02"
    assert num_pixels(b"\xff\xd8" + comment * 200_000 + JPEG[2:]) == ENDLESS


def gif(screen, *frames, blocks=b"\x01\x00"):
    """A GIF by its headers: the sizes of its screen and its frames."""
    data = b"GIF89a" + struct.pack("<HH", *screen) + b"\0\0\0"
    return data + b"".join(b"," + struct.pack("<HHHH", 0, 0, *size) + b"\0\x02" + blocks + b"\0" for size in frames)


def test_gif_counts_as_frames_of_the_size_of_the_largest():
    # TensorFlow's decoder takes the width of the widest frame and the height of the highest, and not the screen's.
    assert num_pixels(gif((1, 1), (60_000, 2), (3, 50_000), (1, 1))) == 3 * 60_000 * 50_000
    assert num_pixels(gif((100, 100), (10, 10), (20, 5))) == 2 * 100 * 100


def test_gif_of_endless_blocks_counts_as_too_large():
    assert num_pixels(gif((9, 9), (9, 9), blocks=b"\x01a" * 200_000)) == ENDLESS
    assert num_pixels(gif((9, 9), (9, 9), blocks=(b"\xff" + b"a" * 255) * 200_000)) == 81


@pytest.mark.slow
def test_fill_bytes_are_passed_over_at_once():
    data = JPEG[:2] + b"\xff" * 30_000_000
    start = time.thread_time()
    assert num_pixels(data + JPEG[2:]) == SIZE
    assert num_pixels(data) == 0
    assert time.thread_time() - start < 1


def bomb(kind):
    """An image of 65000 x 65000, by its header."""
    if kind == "png":
        data = bytearray(IMAGES["png"][0])
        data[16:24] = struct.pack(">II", 65_000, 65_000)
    elif kind == "gif":
        data = bytearray(IMAGES["gif"][0])
        data[6:10] = struct.pack("<HH", 65_000, 65_000)
    else:
        data = bytearray(JPEG)
        place = data.find(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif"])
def test_image_too_large_is_refused_over_both_transports(rest, stubs, predict_request, status_of, kind):
    value = {"b64": base64.b64encode(bomb(kind)).decode()}
    answer = rest.post("/v1/models/zoo:predict", json={"signature_name": "strings", "instances": [value]})
    message = "An image has 4225000000 pixels: at most 100000000 pixels are decoded"
    assert (answer.status_code, answer.json()) == (400, {"error": message})
    request = predict_request("strings", s=np.array([bomb(kind)], object))
    assert status_of(stubs.prediction.Predict, request, timeout=20) == ("INVALID_ARGUMENT", message)


def test_image_in_an_example_is_refused(rest):
    features = {"x": 1.0, "image/encoded": {"b64": base64.b64encode(bomb("png")).decode()}}
    body = {"signature_name": "classify", "examples": [features]}
    answer = rest.post("/v1/models/zoo:classify", json=body)
    assert (answer.status_code, "4225000000 pixels" in answer.text) == (400, True)


class Nothing:
    """Stands for a graph."""

    def run(self, feeds, fetches, call):
        return []


@pytest.mark.parametrize("padding", [0, 5000], ids=["short", "long"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_image_of_any_kind_is_found_in_an_example(kind, padding):
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, kind)
    example = example_pb2.Example()
    example.features.feature["text"].bytes_list.value.append(b"x" * padding)
    example.features.feature["image"].bytes_list.value.append(file.getvalue())
    feeds = {"inputs:0": np.array([example.SerializeToString()], object)}
    GuardedRunner(Nothing(), Path("/models/m"), 6).run(feeds, [], Call())
    with pytest.raises(ServingError, match="An image has 6 pixels: at most 5 pixels are decoded"):
        GuardedRunner(Nothing(), Path("/models/m"), 5).run(feeds, [], Call())


@pytest.mark.slow
def test_limit_is_the_options(serve, rest_client, zoo_path):
    body = {"signature_name": "strings", "instances": [{"b64": base64.b64encode(JPEG).decode()}]}
    with serve(zoo_path, max_image_pixels=SIZE - 1) as server, rest_client(server) as rest:
        assert rest.post("/v1/models/zoo:predict", json=body).status_code == 400
    with serve(zoo_path, max_image_pixels=0) as server, rest_client(server) as rest:
        body["instances"][0]["b64"] = base64.b64encode(bomb("jpeg")).decode()
        assert rest.post("/v1/models/zoo:predict", json=body).status_code == 200  # nothing decodes it
