import dataclasses
import json

import pytest

from training.config import Config, from_dict, load_config, named_configs, override
from training.errors import InputError


@pytest.mark.parametrize("name", named_configs())
def test_every_config_loads(name):
    config = load_config(name)
    assert from_dict(dataclasses.asdict(config)) == config


def test_file_may_set_several_configs(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from training.config import Config\nconfigs = {'one': Config(), 'two': Config(seed=2)}\n")
    assert load_config(f"{path}:two").seed == 2
    with pytest.raises(InputError, match=r"no config ''; there are one, two, or .*mine\.py:NAME"):
        load_config(str(path))
    with pytest.raises(InputError, match=r"no config 'tow' \(did you mean two\?\); there are one, two"):
        load_config(f"{path}:tow")


def test_config_file_may_be_given_by_its_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from training.config import Config\nconfig = Config(steps=7, warmup_steps=1)\n")
    assert load_config(str(path)).steps == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batchsize": 3}, r"no field 'batchsize' \(did you mean batch_size\?\)"),
        ({"average": 0.9}, r"no field 'average' \(it is ema_decay now\)"),
        ({"steps": 1e3}, "steps is 1000.0, but must be a whole number"),
        ({"flip": 1}, "flip is 1, but must be true or false"),
        ({"filters": [8, 16]}, r"filters is \[8, 16\], but must be numbers with commas"),
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"filters": (8, 0)}, r"filters is \(8, 0\), but must be at least 1"),
        ({"momentum": 1}, "momentum is 1, but must be at least 0 and below 1"),
        ({"precision": "float16"}, "precision is 'float16', but must be float32, mixed_bfloat16, mixed_float16"),
        ({"schedule": "poly"}, "schedule is 'poly', but must be cosine, linear, steps or plateau"),
        ({"optimizer": "adam"}, "optimizer is 'adam', but must be sgd, adamw, lion, muon or lamb"),
        ({"optimizer": "adamw", "nesterov": True}, "nesterov is a variant of sgd's momentum, but optimizer is adamw"),
        ({"best_metric": "auc"}, "best_metric is 'auc', but must be accuracy, loss, top5_accuracy, precision, recall"),
        ({"tracker": "comet"}, "tracker is 'comet', but must be empty, mlflow or wandb"),
        ({"dropout": 1.0}, "dropout is 1.0, but must be at least 0 and below 1"),
        ({"drop_path": 1.0}, "drop_path is 1.0, but must be at least 0 and below 1"),
        ({"drop_factor": 1.0}, "drop_factor is 1.0, but must be above 1"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0, but must be above 0 and at most 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0, but must be at least 1"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0, but must be at least 0"),
        ({"xla": True}, "set --deterministic false beside it"),
        ({"class_weights": "1,x"}, "class_weights is '1,x', but must be balanced, or numbers above 0 with commas"),
        ({"class_weights": "1,0"}, "class_weights is '1,0', but must be balanced, or numbers above 0 with commas"),
        ({"unfreeze_step": 9}, "unfreeze_step is 9, but freeze names no layers"),
        ({"max_unreadable": 2.0}, "max_unreadable is 2.0, but must be at least 0 and at most 1"),
        ({"random_erasing": -1.0}, "random_erasing is -1.0, but must be at least 0 and at most 1"),
        ({"randaugment_magnitude": 2.0}, "randaugment_magnitude is 2.0, but must be above 0 and at most 1"),
        ({"holdout": 0.0}, "holdout is 0.0, but must be above 0 and below 1"),
        ({"scale_min": 300}, "scale_min is 300 and scale_max 0, but they must rise from image_size, 0"),
        ({"scale_min": 64, "scale_max": 64, "crop_area_min": 0.1}, "two ways to crop training images"),
        ({"image_size": 64, "test_scale": 60}, "test_scale is 60, but must be at least image_size, 64, or 0"),
        ({"tracker": "x"}, "tracker is 'x', but must be empty, mlflow or wandb"),
        ({"rectifier": "elu"}, "rectifier is 'elu', but must be relu, leaky_relu, prelu or prelu_shared"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_field_is_named(fields, message):
    with pytest.raises(InputError, match=message):
        override(Config(), fields)


def test_epochs_are_counted_in_steps():
    config = Config(epochs=2.5, evaluate_every=0, checkpoint_every=0).in_steps(12)
    assert (config.steps, config.evaluate_every, config.checkpoint_every) == (30, 12, 12)
    assert config.in_steps(12) == config


def test_steps_that_are_given_replace_a_configs_epochs():
    assert override(Config(epochs=2), {"steps": 7}).in_steps(100).steps == 7
    assert override(Config(epochs=2), {"steps": 7, "epochs": 3.0}).in_steps(100).steps == 300


def test_unknown_config_names_the_nearest():
    with pytest.raises(InputError, match=r"no config 'digit' \(did you mean digits\?\); there are cifar10, "):
        load_config("digit")


def test_file_without_a_config_is_named(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(InputError, match=r"empty\.py must set `config = Config"):
        load_config(str(tmp_path / "empty.py"))


def test_stored_config_is_read_again(tmp_path):
    config = Config(filters=(4, 8), flip=True, weight_decay=1.0)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": dataclasses.asdict(config), "labels": []}))
    assert load_config(str(path)) == config


def test_stored_config_of_an_earlier_version_is_read():
    fields = {
        "average": 0.9,
        "policy_ops": 2,
        "policy_strength": 0.3,
        "erase": 0.1,
        "accumulate": 4,
        "shuffle_buffer": 9,
    }
    assert from_dict({**fields, "steps_per_call": 5}) == Config(
        ema_decay=0.9,
        randaugment_num_ops=2,
        randaugment_magnitude=0.3,
        random_erasing=0.1,
        gradient_accumulation_steps=4,
        steps_per_execution=5,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no config: give the config.json of a run"),
        ("[]", "holds no config: give the config.json of a run"),
        ('{"config": 3}', "holds no config: give the config.json of a run"),
        ('{"config": {"stepz": 3}}', r"there is no field 'stepz' \(did you mean steps\?\)"),
        ('{"config": {"steps": "3"}}', "steps is '3', but must be a whole number"),
        ('{"config": {"dataset": 3}}', "dataset is 3, but must be a text"),
        ('{"config": {"filters": 3}}', "filters is 3, but must be numbers with commas"),
        ('{"config": {"steps": 0}}', "steps is 0, but must be at least 1"),
    ],
)
def test_what_is_no_stored_config_is_named(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(str(path))
