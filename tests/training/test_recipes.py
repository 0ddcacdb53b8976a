"""Every config takes a step at the shapes it is made for, on generated images."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from training.config import load_config, named_configs
from training.data.image_set import ImageSet, Split
from training.distribute.strategy import make_strategy
from training.experiment import build_experiment

PHOTO = (None, None, 3)
SETS = {
    "digits": ((8, 8, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "image_folder": (PHOTO, 5),
    "imagenet2012": (PHOTO, 1000),
}
# Model C takes 4 GB without its activations, B as much as A, and CPUs are slow at bfloat16.
TOO_LARGE = {"imagenet_b", "imagenet_c", "imagenet_a_fast", "imagenet_c_fast"}


@dataclasses.dataclass(frozen=True)
class Generated(ImageSet):
    """Noise of the right shape and format."""

    def _open(self, split):
        rng = np.random.default_rng(0)
        height, width, channels = (known or size for known, size in zip(self.shape, (375, 500, 3), strict=True))
        encode = tf.io.encode_jpeg if self.shape == PHOTO else tf.io.encode_png
        count = self.splits[split]
        images = [encode(rng.integers(0, 256, (height, width, channels), np.uint8)) for _ in range(count)]
        labels = tf.constant(rng.integers(0, len(self.labels), count), tf.int64)
        return Split(
            name=split,
            num_examples=count,
            fetch=lambda indices: tf.gather(tf.stack(images), indices),
            load=lambda index, image: image,
            label=lambda index, image: labels[index],
            describe=lambda index: "noise",
        )

    def _count(self, split):
        return self.splits[split]


def generated(config):
    shape, num_classes = SETS[config.dataset]
    labels = tuple(str(number) for number in range(num_classes))
    return Generated(config.dataset, labels, shape, {config.train_split: 4, config.test_split: 2})


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in named_configs() if name not in TOO_LARGE])
def test_recipe_takes_a_step_at_its_shapes(name):
    short = {"epochs": 0, "steps": 100_000, "batch_size": 2, "cpu_devices": 1}
    config = dataclasses.replace(load_config(name), init_from="", deterministic=False, **short)
    experiment = build_experiment(config, make_strategy(1), generated(config))
    experiment.load_mean(0)
    metrics = experiment.train_step()(next(iter(experiment.train_batches(0))))
    figures = experiment.evaluation(config.validation_split)()
    num_classes = SETS[config.dataset][1]
    assert 0 < float(metrics["loss"]) < 10 * np.log(num_classes)
    assert float(metrics["gradient_norm"]) > 0
    assert figures["accuracy"] in (0, 0.5, 1)  # of two images


@pytest.mark.parametrize("name", ["14layer", "a", "b", "c"])
def test_imagenet_is_trained_by_the_papers_recipe(name):
    config = load_config(f"imagenet_{name}")
    epochs = 75 if name == "14layer" else 80
    assert config.in_steps(10_010).steps == epochs * -(-1_281_167 // 128)
    assert config.network == {"14layer": "14-layer"}.get(name, name.upper())
    assert (config.scale_min, config.scale_max) == ((256, 256) if name == "14layer" else (256, 512))
    wanted = {
        "batch_size": 128,
        "learning_rate": 0.01,
        "warmup_steps": 0,
        "schedule": "plateau",
        "drop_factor": 10,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "dropout": 0.5,
        "image_size": 224,
        "flip": True,
        "pca_colour": 0.1,
        "subtract_mean": True,
        "rectifier": "prelu",
        "clip_norm": 0,
    }
    assert {field: getattr(config, field) for field in wanted} == wanted


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_c"])
def test_fast_config_takes_the_steps_of_the_exact_one(name):
    exact, fast = dataclasses.asdict(load_config(name)), dataclasses.asdict(load_config(f"{name}_fast"))
    differing = {field for field in exact if exact[field] != fast[field]}
    assert differing <= {"precision", "deterministic", "xla", "steps_per_execution"}
