"""Which models to serve: ModelServerConfig, from a text file or from a request (server_core.cc)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from serving.errors import Code, ServingError, invalid_argument
from serving.repository.storage import All, Latest, Policy, Specific
from serving.telemetry.request_log import LoggingConfig
from serving.wire.protos import read_text

PLATFORM = "tensorflow"  # the only one there is
_COLLECTORS = ("", "tfrecord")


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve: its name, the directory that holds its versions, which of them to serve, their labels."""

    name: str
    base_path: Path
    policy: Policy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = PLATFORM
    logging: LoggingConfig | None = None


def read(path: str) -> list[ModelConfig]:
    """The models in a file. Raises ServingError where it can't be read or followed."""
    return decode(read_text(path, model_server_config_pb2.ModelServerConfig))


def decode(message: Any) -> list[ModelConfig]:
    """The models in a ModelServerConfig. Raises ServingError where it can't be followed."""
    if message.WhichOneof("config") == "custom_model_config":
        raise invalid_argument("ModelServer does not yet support custom model config.")
    listed = message.model_config_list.config
    names = [each.name for each in listed]
    for name in names:
        if names.count(name) > 1:
            raise invalid_argument(f"Illegal to list model {name} multiple times in config list")
    return [_decode_model(each) for each in listed]


def check_platforms(configs: Sequence[ModelConfig], current: Sequence[ModelConfig]) -> None:
    """Raises ServingError where a model asks for a platform that it can't have."""
    before = {each.name: each.platform for each in current}
    for config in configs:
        if before.get(config.name, config.platform) != config.platform:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {config.name} platform was "
                f"{before[config.name]} and new platform requested is {config.platform}"
            )
        if config.platform != PLATFORM:
            raise invalid_argument(f"Model {config.name} requests unsupported platform {config.platform}")


def _decode_model(message: Any) -> ModelConfig:
    if not message.base_path.startswith("/"):
        raise invalid_argument(
            f"Expected model {message.name} to have an absolute path or URI; got base_path()={message.base_path}"
        )
    return ModelConfig(
        name=message.name,
        base_path=Path(message.base_path),
        policy=_policy(message.model_version_policy),
        labels=dict(message.version_labels),
        platform=_platform(message),
        logging=_logging(message.name, message.logging_config) if message.HasField("logging_config") else None,
    )


def _platform(message: Any) -> str:
    if message.model_type == model_server_config_pb2.MODEL_TYPE_UNSPECIFIED:
        if message.model_platform:
            return str(message.model_platform)
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {message.name}"
        )
    if message.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
        )
    if message.model_type != model_server_config_pb2.TENSORFLOW:
        raise invalid_argument(f"ModelServerConfig::model_type choice {message.model_type} not supported.")
    return PLATFORM


def _logging(name: str, message: Any) -> LoggingConfig:
    collector, rate = message.log_collector_config, message.sampling_config.sampling_rate
    if message.HasField("custom_logging_config"):
        raise invalid_argument(f"Model {name}: there is no custom_logging_config here")
    if collector.type not in _COLLECTORS:
        raise ServingError(
            Code.NOT_FOUND, f"Cannot find LogCollector::Factory for type: {collector.type}. There is tfrecord"
        )
    if not 0 <= rate <= 1:
        raise invalid_argument(f"Model {name}: its sampling_rate is {rate:g}, and not from 0 to 1")
    return LoggingConfig(collector.filename_prefix, rate)


def _policy(message: Any) -> Policy:
    choice = message.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(frozenset(message.specific.versions))
    return Latest(max(1, message.latest.num_versions))
