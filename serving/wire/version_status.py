"""How a version of a model is, as its clients see it."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.errors import Code, ServingError


class State(enum.IntEnum):
    """ModelVersionStatus.State of apis/get_model_status.proto, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """How a version is, and the error that ended it or that its last attempt to load ended with."""

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


@dataclass(frozen=True)
class ModelStatus:
    """How a model is: its versions, the highest first, and the versions that its labels stand for."""

    name: str
    versions: Sequence[VersionStatus]
    labels: Mapping[str, int]


def servable_not_found(name: str, version: int | None) -> ServingError:
    """The error that TensorFlow Serving's manager gives; its readiness probe looks for "Servable" in it."""
    which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return ServingError(Code.NOT_FOUND, f"Servable not found for request: {which}")
