import dataclasses
import fcntl
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from training.data.cache import cached_references
from training.data.datasets import open_image_set
from training.data.pipeline import evaluation_batches, train_batches
from training.errors import InputError

SHAPE = (8, 8, 3)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(40):
        path = tmp_path / "photos/train" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(rng.integers(0, 256, (8, 8, 3), np.uint8)).numpy())
    (tmp_path / "photos/train/a/bad.png").write_bytes(b"")
    return tmp_path / "photos"


@pytest.fixture
def config(small_config, folder, tmp_path):
    return dataclasses.replace(
        small_config,
        dataset="image_folder",
        data_dir=str(folder),
        test_split="train",
        batch_size=16,
        image_size=8,
        max_unreadable=1.0,
        cache_dir=str(tmp_path / "cache"),
    )


def epochs(config, steps=9):
    images = open_image_set(config.dataset, config.data_dir)
    batches = [
        *train_batches(images, config, SHAPE, 2, 1).take(2 * steps),
        *evaluation_batches(images, config, SHAPE, 2),
    ]
    return [{name: value.numpy() for name, value in batch.items()} for batch in batches]


def read_all(config):
    images = open_image_set(config.dataset, config.data_dir)
    references, load = cached_references(images, config, "train")
    return [(load(reference).numpy(), int(label), name.numpy()) for reference, label, name in references]


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_cache_changes_no_batch_though_the_photos_are_gone(config, folder, cache):
    expected = epochs(config)
    config = dataclasses.replace(config, cache=cache)
    images = open_image_set(config.dataset, config.data_dir)
    batches = train_batches(images, config, SHAPE, 2, 1)
    iterator = iter(batches)
    first = [next(iterator) for _ in range(2)]
    shutil.rmtree(folder)  # the first epoch's shuffle has read them all
    for batch, wanted in zip([*first, *(next(iterator) for _ in range(16))], expected, strict=False):
        for name, values in wanted.items():
            np.testing.assert_array_equal(batch[name], values, err_msg=name)


def test_cache_on_disk_is_made_once(config):
    config = dataclasses.replace(config, cache="disk")
    before = read_all(config)
    (folder,) = (path for path in pathlib.Path(config.cache_dir).iterdir() if path.is_dir())
    made = folder.stat().st_mtime_ns
    assert read_all(config) == before
    assert folder.stat().st_mtime_ns == made


def test_another_photo_of_the_same_name_makes_another_cache(config, folder):
    config = dataclasses.replace(config, cache="disk")
    read_all(config)
    photo = tf.io.encode_png(np.full((8, 8, 3), 7, np.uint8)).numpy()
    (folder / "train/a/0.png").write_bytes(photo)
    assert photo in [encoded for encoded, _, _ in read_all(config)]


WRITER = """
import sys
from training.data.cache import cached_references
from training.config import Config
from training.data.datasets import open_image_set
config = Config(dataset="image_folder", data_dir=sys.argv[1], cache_dir=sys.argv[2], cache="disk")
images = open_image_set(config.dataset, config.data_dir)
print("ready", flush=True)
references, load = cached_references(images, config, "train")
print(sum(1 for _ in references), flush=True)
"""


@pytest.mark.slow
def test_second_process_waits_for_the_first_and_survives_its_death(config):
    config = dataclasses.replace(config, cache="disk")
    expected = read_all(config)
    (folder,) = (path for path in pathlib.Path(config.cache_dir).iterdir() if path.is_dir())
    shutil.rmtree(folder)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    unfinished.mkdir()
    (unfinished / "part").write_bytes(b"left behind by a process that was killed")
    with folder.with_name(f"{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-c", WRITER, config.data_dir, config.cache_dir]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(1)
            assert process.poll() is None
            assert not folder.exists()
            lock.close()
            assert process.stdout.readline() == "41\n"
    assert read_all(config) == expected
    assert not unfinished.exists()


@pytest.mark.slow
def test_process_that_is_killed_leaves_no_lock(config):
    config = dataclasses.replace(config, cache="disk")
    script = WRITER.replace("import sys", "import sys, os, signal, tensorflow as tf", 1).replace(
        'print("ready"', 'tf.data.Dataset.save = lambda self, path: os.kill(os.getpid(), signal.SIGKILL)\nprint("ready"'
    )
    command = [sys.executable, "-c", script, config.data_dir, config.cache_dir]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == -signal.SIGKILL
    assert len(read_all(config)) == 41


def test_folder_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "file").write_text("")
    config = dataclasses.replace(config, cache="disk", cache_dir=str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"file cannot hold a cache: .*; name another cache_dir"):
        read_all(config)


def test_full_disk_leaves_nothing_half_written(config, largest_file):
    config = dataclasses.replace(config, cache="disk")
    with largest_file(2000), pytest.raises(InputError, match="cannot hold a cache"):
        read_all(config)
    assert not [path for path in pathlib.Path(config.cache_dir).iterdir() if path.is_dir()]
    assert len(read_all(config)) == 41
