import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_prelu.networks.small import small_network
from training.classifier import load_network
from training.diagnose import find_not_finite, first_layer_not_finite, not_finite
from training.distribute.strategy import make_strategy
from training.errors import InputError, TrainingError
from training.experiment import build_experiment
from training.run.folder import Run
from training.train import fit


@pytest.fixture
def model():
    return small_network((8, 8, 1), 5, filters=(4, 6), convolutions=1, seed=1)


def test_finite_outputs_have_no_first_layer(model):
    assert first_layer_not_finite(model, np.ones((2, 8, 8, 1), "float32")) is None


def test_first_layer_is_where_it_begins_for_every_image(model):
    kernel = model.get_layer("conv2_1").kernel
    kernel.assign(np.full(kernel.shape, np.inf))
    name, images = first_layer_not_finite(model, np.ones((2, 8, 8, 1), "float32"))
    assert (name, images.tolist()) == ("conv2_1", [True, True])


def test_image_is_told_from_the_others(model):
    images = np.ones((3, 8, 8, 1), "float32")
    images[1] = 1e38
    kernel = model.get_layer("conv1_1").kernel
    kernel.assign(np.full(kernel.shape, 1e3))
    name, images = first_layer_not_finite(model, images)
    assert (name, images.tolist()) == ("conv1_1", [False, True, False])


def diverging(config, **changes):
    """Ends up beyond float32 within a few steps, of 12 an epoch."""
    return dataclasses.replace(
        config, batch_size=128, learning_rate=1e12, warmup_steps=0, log_every=6, checkpoint_every=6, **changes
    )


def test_layers_behind_a_mean_that_is_subtracted_are_looked_at(small_config):
    experiment = build_experiment(dataclasses.replace(small_config, subtract_mean=True), make_strategy(1))
    images = np.ones((2, 8, 8, 1), "float32")
    assert first_layer_not_finite(experiment.model, images) is None
    kernel = experiment.model.get_layer("conv2_1").kernel
    kernel.assign(np.full(kernel.shape, np.inf))
    name, images = first_layer_not_finite(experiment.model, images)
    assert (name, images.tolist()) == ("conv2_1", [True, True])


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_step_batch_and_layer_are_named_though_found_later(small_config, tmp_path, steps_per_execution):
    config = diverging(small_config, steps_per_execution=steps_per_execution, evaluate_every=6)
    with pytest.raises(TrainingError) as caught:
        fit(config, tmp_path)
    message = str(caught.value)
    assert message.startswith(
        "the loss is nan at step 2, batch 2 of 12 in epoch 1: conv2_1_rectifier is the first layer whose output is not "
        "finite, for 64 of 64 images; there is no checkpoint yet; a lower learning_rate"
    )
    assert not list((tmp_path / "checkpoints").glob("*.npz"))


@pytest.mark.slow
def test_last_good_checkpoint_is_where_the_search_begins(small_config, tmp_path):
    config = dataclasses.replace(diverging(small_config), checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"the loss is .* at step \d, .*; the checkpoint of step \d stays"):
        fit(config, tmp_path)
    assert list((tmp_path / "checkpoints").glob("*.npz"))


@pytest.mark.slow
def test_weights_that_a_step_spoilt_are_named(small_config):
    experiment = build_experiment(small_config, make_strategy(1))
    kernel = experiment.model.get_layer("logits").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    message = find_not_finite(experiment, 0, 1)
    assert message.startswith("the loss is nan at step 1, batch 1 of 2 in epoch 1: ")
    assert message.endswith("the weights of logits/kernel were not finite any more after the step before")


@pytest.mark.slow
def test_what_does_not_come_again_is_said(small_config):
    experiment = build_experiment(small_config, make_strategy(1))
    assert find_not_finite(experiment, 0, 1) == (
        "the loss was not finite at step 1, but is when the steps since 0 are repeated"
    )


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"loss": 1.0, "gradient_norm": 2.0}, ""),
        ({"loss": np.nan, "gradient_norm": 2.0}, "loss"),
        ({"loss": [1.0, np.inf, 1.0], "gradient_norm": [1.0, 2.0, 3.0]}, "loss"),
        ({"loss": 1.0, "gradient_norm": np.inf}, "gradient_norm"),
        ({"loss": 1.0, "gradient_norm": np.nan, "loss_scale": 2.0}, ""),
        ({"loss": 1.0, "gradient_norm": np.nan, "loss_scale": 1.0}, "gradient_norm"),
        ({"loss": [1.0, 1.0], "gradient_norm": [np.inf, 1.0], "loss_scale": [2.0, 1.0]}, ""),
    ],
)
def test_gradient_ends_a_run_only_when_no_loss_scale_is_left_to_fall(figures, expected):
    assert not_finite({name: np.asarray(value) for name, value in figures.items()}) == expected


@pytest.mark.slow
def test_float16_that_never_recovers_is_stopped_and_explained(small_config, tmp_path):
    # A finite loss whose gradient float16 cannot hold, however small the scale.
    config = dataclasses.replace(small_config, precision="mixed_float16", steps=30, learning_rate=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.step.gradients.cross_entropies", lambda batch, logits, smoothing: 1e8 * logits[:, 0])
        with pytest.raises(TrainingError, match=r"the gradient_norm is .* at step \d+, .*: every layer's output is"):
            fit(config, tmp_path)


class OneUnlabelled(tfds.core.GeneratorBasedBuilder):
    """Images of which one of the test split has no label, which tensorflow-datasets writes as -1."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples([0, 1, 2] * 4),
            "test": self._generate_examples([0, 1, 2, 0, 1, -1]),
        }

    def _generate_examples(self, labels):
        for index, label in enumerate(labels):
            yield index, {"image": np.full((8, 8, 1), index, np.uint8), "label": label}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "a label is -1 in batch of test 2, but one_unlabelled has 3 classes, 0 to 2: mend the data"),
        (
            {"train_split": "test", "steps_per_execution": 2},
            "a label is -1 in step [12], but one_unlabelled has 3 classes",
        ),
    ],
    ids=["test", "train"],
)
def test_label_out_of_range_is_named_with_its_batch(small_config, data_dir, tmp_path, changes, message):
    OneUnlabelled(data_dir=str(data_dir)).download_and_prepare()
    config = dataclasses.replace(small_config, dataset="one_unlabelled", batch_size=4, **changes)
    with pytest.raises(InputError, match=message):
        fit(config, tmp_path)


def test_metric_that_the_classes_do_not_have_is_refused(small_config, data_dir, tmp_path):
    OneUnlabelled(data_dir=str(data_dir)).download_and_prepare()
    config = dataclasses.replace(small_config, dataset="one_unlabelled", batch_size=4, best_metric="top5_accuracy")
    with pytest.raises(InputError, match="best_metric is top5_accuracy, but one_unlabelled has 3 classes"):
        fit(config, tmp_path)


def test_batch_smaller_than_the_replicas_is_refused(small_config, tmp_path):
    with pytest.raises(InputError, match="batch_size is 1, but must be at least 2, an image for each device"):
        fit(dataclasses.replace(small_config, batch_size=1), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_repetition_takes_the_very_steps_of_the_run(small_config, tmp_path):
    config = dataclasses.replace(
        small_config, batch_size=300, learning_rate=5.0, schedule="plateau", patience=1, evaluate_every=1
    )
    fit(config, tmp_path)
    experiment = build_experiment(config, make_strategy(2))
    find_not_finite(experiment, 0, 5)
    assert experiment.updater.plateau.drops.numpy() > 0  # or the evaluations do not matter
    for value, expected in zip(experiment.model.get_weights(), load_network(Run(tmp_path)).get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.slow
def test_replicas_weights_are_looked_at_as_they_were_before_the_step(small_config):
    experiment = build_experiment(diverging(small_config), make_strategy(2))
    find_not_finite(experiment, 0, 6)
    weights = [keras.ops.convert_to_numpy(variable) for variable in experiment.model.trainable_variables]
    assert all(np.isfinite(value).all() for value in weights)
    assert tf.reduce_any([tf.reduce_max(tf.abs(value)) > 1e6 for value in weights])
