"""Names for versions: which version each label of each model stands for (server_core.cc)."""

from collections.abc import Callable, Iterable, Mapping

from serving.errors import Code, ServingError, invalid_argument
from serving.repository.config import ModelConfig

Labels = Mapping[str, Mapping[str, int]]
"""Versions by model name and label."""


def assign_labels(
    configs: Iterable[ModelConfig],
    current: Labels,
    is_available: Callable[[str, int], bool],
    allow_unavailable: bool = False,
) -> Labels:
    """The labels of these configurations.

    Raises:
        ServingError: A label would stand for a version that is not available. Where `allow_unavailable`, only a
            label that stands for another version so far is refused that.
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
    """The version that a label stands for. Raises ServingError for an unknown one."""
    try:
        return labels[name][label]
    except KeyError:
        raise invalid_argument(f"Unrecognized servable version label: {label}") from None
