"""ModelServerConfig: which models to serve, and what can't be followed."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.errors import ServingError
from serving.repository.config import All, Latest, ModelConfig, Specific, check_platforms, decode, read, select
from serving.telemetry.request_log import LoggingConfig

MODEL = 'name: "m" base_path: "/models/m" '
TENSORFLOW = MODEL + 'model_platform: "tensorflow" '


def models(*configs):
    return "model_config_list {" + "".join(f"config {{ {each} }}" for each in configs) + "}"


def parsed(text):
    return decode(text_format.Parse(text, ModelServerConfig()))


POLICIES = {
    "none": ("", Latest(1)),
    "latest": ("model_version_policy { latest { num_versions: 2 } }", Latest(2)),
    "latest-of-none": ("model_version_policy { latest { } }", Latest(1)),
    "all": ("model_version_policy { all { } }", All()),
    "specific": ("model_version_policy { specific { versions: 3 versions: 1 } }", Specific(frozenset({1, 3}))),
}


@pytest.mark.parametrize(("text", "policy"), POLICIES.values(), ids=POLICIES)
def test_policy(text, policy):
    assert parsed(models(TENSORFLOW + text)) == [ModelConfig("m", Path("/models/m"), policy)]


SELECTED = {
    "latest": (Latest(1), [9]),
    "latest-two": (Latest(2), [9, 7]),
    "latest-of-more-than-there-are": (Latest(5), [9, 7, 1]),
    "all": (All(), [9, 7, 1]),
    "specific": (Specific(frozenset({7, 8, 1})), [7, 1]),
}


@pytest.mark.parametrize(("policy", "selected"), SELECTED.values(), ids=SELECTED)
def test_policy_selects(policy, selected):
    assert select(policy, {7: "", 1: "", 9: ""}) == selected


def test_labels_and_several_models_are_read_in_order():
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    first, second = parsed(models(TENSORFLOW + labels, TENSORFLOW.replace('"m"', '"n"')))
    assert (first.name, first.labels) == ("m", {"stable": 1, "canary": 2})
    assert (second.name, second.labels) == ("n", {})


def test_deprecated_model_type_stands_for_the_platform():
    assert parsed(models(MODEL + "model_type: TENSORFLOW")) == parsed(models(TENSORFLOW))


def test_empty_file_serves_nothing(tmp_path):
    path = tmp_path / "models.config"
    path.touch()
    assert read(str(path)) == []


def test_missing_file(tmp_path):
    path = tmp_path / "models.config"
    with pytest.raises(ServingError) as caught:
        read(str(path))
    assert str(caught.value) == f"NOT_FOUND: {path}; No such file or directory"


REFUSED = {
    "no-platform": (
        models(MODEL),
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
        "model name is m",
    ),
    "platform-twice": (
        models(TENSORFLOW + "model_type: TENSORFLOW"),
        "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform.",
    ),
    "other-type": (models(MODEL + "model_type: OTHER"), "ModelServerConfig::model_type choice 2 not supported."),
    "relative-path": (
        models(TENSORFLOW.replace("/models", "models")),
        "Expected model m to have an absolute path or URI; got base_path()=models/m",
    ),
    "name-twice": (models(TENSORFLOW, TENSORFLOW), "Illegal to list model m multiple times in config list"),
    "sampling-rate": (
        models(TENSORFLOW + "logging_config { sampling_config { sampling_rate: 100 } }"),
        "Model m: its sampling_rate is 100, and not from 0 to 1",
    ),
    "custom-logging": (
        models(TENSORFLOW + "logging_config { custom_logging_config { } }"),
        "Model m: there is no custom_logging_config here",
    ),
    "custom": ("custom_model_config { }", "ModelServer does not yet support custom model config."),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed(text, message):
    with pytest.raises(ServingError) as caught:
        parsed(text)
    assert str(caught.value) == f"INVALID_ARGUMENT: {message}"


def test_other_log_collector():
    collector = 'logging_config { log_collector_config { type: "kafka" } }'
    with pytest.raises(ServingError) as caught:
        parsed(models(TENSORFLOW + collector))
    assert str(caught.value) == "NOT_FOUND: Cannot find LogCollector::Factory for type: kafka. There is tfrecord"


LOGGING = {
    "nothing": ("", LoggingConfig("", 0.0)),
    "rate": ("sampling_config { sampling_rate: 0.5 }", LoggingConfig("", 0.5)),
    "prefix": (
        'log_collector_config { type: "tfrecord" filename_prefix: "/logs/m" } sampling_config { sampling_rate: 1 }',
        LoggingConfig("/logs/m", 1.0),
    ),
}


@pytest.mark.parametrize(("text", "logging"), LOGGING.values(), ids=LOGGING)
def test_logging(text, logging):
    (config,) = parsed(models(TENSORFLOW + f"logging_config {{ {text} }}"))
    assert config.logging == logging


def test_other_platform():
    other = parsed(models(MODEL + 'model_platform: "other"'))
    with pytest.raises(ServingError, match=r"^INVALID_ARGUMENT: Model m requests unsupported platform other$"):
        check_platforms(other, [])
    with pytest.raises(ServingError, match=r"platform was tensorflow and new platform requested is other$"):
        check_platforms(other, parsed(models(TENSORFLOW)))
