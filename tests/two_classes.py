"""Photos of two classes, dark and light, and a small network that is trained on them as a user would."""

import dataclasses

import numpy as np
import tensorflow as tf

from training.config import load_config
from training.run.folder import Run
from training.train import fit

SIZES = [(40, 32), (32, 57), (90, 61), (32, 32)]  # none of them twice, so that scaling and cropping both count


def photo(rng, is_dark, size):
    """A JPEG of a height and a width."""
    low, high = (0, 120) if is_dark else (130, 255)
    smooth = tf.image.resize(rng.uniform(low, high, (6, 6, 3)), size)
    return tf.io.encode_jpeg(tf.cast(smooth, tf.uint8), quality=95).numpy()


def trained_run(tmp_path_factory, dark, light):
    """A run whose network knows all photos of the classes with these names."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for split, count in (("train", 12), ("val", 4)):
        for name in (dark, light):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                (folder / split / name / f"{index}.jpg").write_bytes(
                    photo(rng, name == dark, SIZES[index % len(SIZES)])
                )
    config = dataclasses.replace(
        load_config("image_folder"),
        data_dir=str(folder),
        image_size=24,
        filters=(4, 8),
        steps=30,
        warmup_steps=5,
        batch_size=8,
        crop_padding=2,
        deterministic=False,
    )
    workdir = tmp_path_factory.mktemp("run")
    assert fit(config, workdir)["accuracy"] == 1
    return Run(workdir)
