"""The models to serve: ModelServerConfig, from a text file or from a request (server_core.cc)."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow_serving.config import logging_config_pb2, model_server_config_pb2
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

from serving.errors import Code, ServingError, invalid_argument
from serving.telemetry.request_log import LoggingConfig
from serving.wire.protos import read_text

PLATFORM = "tensorflow"  # the only one there is
_COLLECTORS = ("", "tfrecord")


@dataclass(frozen=True)
class Latest:
    """The policy that serves a number of the highest versions, at least one."""

    num_versions: int = 1


@dataclass(frozen=True)
class All:
    """The policy that serves every version."""


@dataclass(frozen=True)
class Specific:
    """The policy that serves the versions of these numbers."""

    versions: frozenset[int]


Policy = Latest | All | Specific
Labels = Mapping[str, Mapping[str, int]]
"""Versions by model name and label."""


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve: its name, the directory of its versions, the policy that selects some, their labels."""

    name: str
    base_path: Path
    policy: Policy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = PLATFORM
    logging: LoggingConfig | None = None


def read(path: str) -> list[ModelConfig]:
    """The models in a file. Raises ServingError if it can't be read or followed."""
    return decode(read_text(path, model_server_config_pb2.ModelServerConfig))


def decode(message: model_server_config_pb2.ModelServerConfig) -> list[ModelConfig]:
    """The models in a ModelServerConfig. Raises ServingError if it can't be followed."""
    if message.WhichOneof("config") == "custom_model_config":
        raise invalid_argument("ModelServer does not yet support custom model config.")
    listed = message.model_config_list.config
    names = [each.name for each in listed]
    for name in names:
        if names.count(name) > 1:
            raise invalid_argument(f"Illegal to list model {name} multiple times in config list")
    return [_decode_model(each) for each in listed]


def check_platforms(configs: Sequence[ModelConfig], current: Sequence[ModelConfig]) -> None:
    """Raises ServingError if a model asks for a platform that it can't have."""
    before = {each.name: each.platform for each in current}
    for config in configs:
        if before.get(config.name, config.platform) != config.platform:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {config.name} platform was "
                f"{before[config.name]} and new platform requested is {config.platform}"
            )
        if config.platform != PLATFORM:
            raise invalid_argument(f"Model {config.name} requests unsupported platform {config.platform}")


def select(policy: Policy, versions: Collection[int]) -> list[int]:
    """The versions to serve, of those on disk, the highest first."""
    ordered = sorted(versions, reverse=True)
    match policy:
        case Latest(number):
            return ordered[: max(1, number)]
        case Specific(wanted):
            return [version for version in ordered if version in wanted]
    return ordered


def assign_labels(
    configs: Iterable[ModelConfig],
    current: Labels,
    is_available: Callable[[str, int], bool],
    allow_unavailable: bool = False,
) -> Labels:
    """The labels of these configurations.

    Raises ServingError if a label would stand for a version that is not available. With `allow_unavailable`, this is an
    error only for a label that stands for another version so far.
    """
    for config in configs:
        for label, version in config.labels.items():
            unmoved = current.get(config.name, {}).get(label, version) == version
            if not (allow_unavailable and unmoved) and not is_available(config.name, version):
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {config.name}, "
                    "which is not currently available for inference",
                )
    return {config.name: dict(config.labels) for config in configs}


def version_of(labels: Labels, name: str, label: str) -> int:
    """The version that a label stands for. Raises ServingError for an unknown label."""
    try:
        return labels[name][label]
    except KeyError:
        raise invalid_argument(f"Unrecognized servable version label: {label}") from None


def _decode_model(message: model_server_config_pb2.ModelConfig) -> ModelConfig:
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


def _platform(message: model_server_config_pb2.ModelConfig) -> str:
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


def _logging(name: str, message: logging_config_pb2.LoggingConfig) -> LoggingConfig:
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


def _policy(message: FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> Policy:
    choice = message.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(frozenset(message.specific.versions))
    return Latest(max(1, message.latest.num_versions))
