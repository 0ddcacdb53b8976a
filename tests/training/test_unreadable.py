"""Images that cannot be read, from the folder to the end of the run."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.__main__ import main
from training.data.datasets import open_image_set
from training.data.pipeline import evaluation_batches, train_batches

SHAPE = (16, 16, 3)


def encode(kind, pixels):
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()


def grey(level):
    return np.full((20, 20, 3), level, np.uint8)


NOISE = {
    kind: encode(kind, np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)) for kind in ("JPEG", "PNG")
}

DAMAGED = {
    "empty.jpg": (b"", "it is empty"),
    "text.jpg": (b"no image", "Unknown image file format"),
    "truncated.jpg": (NOISE["JPEG"][: len(NOISE["JPEG"]) // 2], "JPEG"),
    "truncated.png": (NOISE["PNG"][: len(NOISE["PNG"]) // 2], "PNG"),
    "tiff.jpg": (encode("TIFF", grey(0)), "Unknown image file format"),
}


@pytest.fixture
def folder(tmp_path):
    """Thirty photos of two classes, each grey level once, and whatever a test adds."""
    for index in range(30):
        path = tmp_path / ("train" if index < 24 else "val") / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode("JPEG", grey(8 * index)))
    (tmp_path / "train/a/gif.jpg").write_bytes(encode("GIF", grey(250)))
    return tmp_path


@pytest.fixture
def damaged(folder):
    for name, (data, _) in DAMAGED.items():
        (folder / "train/b" / name).write_bytes(data)
    return folder


@pytest.fixture
def config(small_config, folder):
    return dataclasses.replace(
        small_config,
        dataset="image_folder",
        data_dir=str(folder),
        test_split="val",
        image_size=16,
        batch_size=8,
        max_unreadable=0.2,
    )


def levels(batches, count):
    """The grey levels with their labels and weights, in order."""
    columns = ("images", "labels", "weights")
    parts = [[batch[name].numpy() for name in columns] for batch in batches.take(count)]
    images, labels, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return images[:, 8, 8, 0], labels, weights


def told(capfd):
    """What the trainer says; libjpeg and libpng say more."""
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("training: ")]


def open_folder(config):
    return open_image_set(config.dataset, config.data_dir)


@pytest.mark.slow
def test_unreadable_images_weigh_nothing_and_all_others_are_seen(damaged, config, capfd):
    seen, labels, weights = levels(train_batches(open_folder(config), config, SHAPE, 2, 0), 8)
    assert weights.sum() == 25
    expected = sorted([(8.0 * index, index % 2) for index in range(24)] + [(250.0, 0)])
    pairs = sorted(zip(seen[weights == 1].round(), labels[weights == 1], strict=True))
    np.testing.assert_allclose(pairs, expected, atol=2)
    assert not seen[weights == 0].any()


@pytest.mark.slow
def test_each_is_named_once_with_its_reason(damaged, config, capfd):
    levels(train_batches(open_folder(config), config, SHAPE, 1, 0), 12)  # three epochs
    lines = told(capfd)
    assert len(lines) == len(DAMAGED)
    for name, (_, reason) in DAMAGED.items():
        (line,) = (line for line in lines if name in line)
        assert line.startswith(f"training: left out {damaged}/train/b/{name}, which cannot be read (")
        assert reason in line
    assert lines[-1].endswith("5 of 30 so far")


@pytest.mark.slow
def test_resuming_and_sharing_are_as_exact_as_without(damaged, config):
    images = open_folder(config)
    whole = levels(train_batches(images, config, SHAPE, 1, 0), 9)
    resumed = levels(train_batches(images, config, SHAPE, 2, 5), 8)
    for name, expected, values in zip(("images", "labels", "weights"), whole, resumed, strict=True):
        np.testing.assert_array_equal(values, expected[40:], err_msg=name)


@pytest.mark.slow
def test_a_photo_that_is_gone_by_the_time_it_is_due_is_left_out(folder, config, capfd):
    images = open_folder(config)
    (folder / "val/a/24.jpg").unlink()
    _, _, weights = levels(evaluation_batches(images, config, SHAPE, 1), 1)
    assert weights.sum() == 5
    assert "24.jpg" in capfd.readouterr().err


@pytest.mark.slow
def test_too_many_unreadable_images_end_the_run(damaged, tmp_path, capfd):
    command = f"fit --config image_folder --data_dir {damaged} --workdir {tmp_path / 'run'} --image_size 16 --filters 4"
    assert main([*command.split(), "--batch_size", "8", "--max_unreadable", "0.1", "--deterministic", "false"]) == 2
    last = told(capfd)[-1]
    assert last.startswith("training: 4 of 30 images of train cannot be read, the last ")
    assert last.endswith("and max_unreadable is 0.1: mend the data, or allow more")


def test_files_are_read_in_parallel_under_determinism(config):
    """Where operations are to be deterministic, tf.data runs a map with a stateful one image by image."""
    split = open_folder(config).open("train")
    example = tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)
    graph = tf.function(split.load).get_concrete_function(*example).graph
    assert {each.type for each in graph.get_operations() if each.op_def.is_stateful} <= {"Placeholder"}
