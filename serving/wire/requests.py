"""Requests and answers, apart from the formats of their contents."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from serving.errors import Code, ServingError

LARGEST_EXPANSION = 100 * 1024 * 1024
"""Bytes to which a request may grow when it is read, as a compressed body may in TensorFlow Serving."""
LARGEST_VERSION = 2**63 - 1


class ModelSpec(NamedTuple):
    """The model that a call asks for: a version or a label of it, never both. Neither means the latest version."""

    name: str
    version: int | None = None
    label: str | None = None
    signature_name: str = ""


class Task(NamedTuple):
    """A part of a MultiInferenceRequest: a signature, and the name of Classify's or Regress's method."""

    spec: ModelSpec
    method_name: str


class PredictRequest(NamedTuple):
    """Named arrays for one signature. No output names means all outputs."""

    signature_name: str
    inputs: Mapping[str, np.ndarray]
    output_names: Sequence[str] = ()


class Prediction(NamedTuple):
    """The answer to Predict: the version that computed it, and the outputs by name."""

    spec: ModelSpec
    outputs: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Classification:
    """The answer to Classify: labels (bytes) and scores (float32), each [examples, classes] or None."""

    spec: ModelSpec
    classes: np.ndarray | None
    scores: np.ndarray | None

    def rows(self) -> list[list[tuple[bytes, np.float32]]]:
        """Returns one list of (label, score) per example. Labels or scores that the model lacks are empty or zero."""
        given = self.scores if self.classes is None else self.classes
        assert given is not None
        classes = np.full(given.shape, b"", object) if self.classes is None else self.classes
        scores = np.zeros(given.shape, np.float32) if self.scores is None else self.scores
        return [list(zip(*row, strict=True)) for row in zip(classes, scores, strict=True)]


@dataclass(frozen=True)
class Regression:
    """The answer to Regress: one value (float32) per example."""

    spec: ModelSpec
    values: np.ndarray


class State(enum.IntEnum):
    """ModelVersionStatus.State of apis/get_model_status.proto, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """The state of a version, and the error that ended it or its last attempt to load."""

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


@dataclass(frozen=True)
class ModelStatus:
    """The versions of a model, the highest first, and the versions of its labels."""

    name: str
    versions: Sequence[VersionStatus]
    labels: Mapping[str, int]


def path_of(spec: ModelSpec) -> str:
    """Returns REST's path of a model, or of a version or label of it."""
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.version is not None:
        return f"{path}/versions/{spec.version}"
    return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"


def servable_not_found(name: str, version: int | None) -> ServingError:
    """Makes the error of TensorFlow Serving's manager. Its readiness probe looks for "Servable" in the text."""
    which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return ServingError(Code.NOT_FOUND, f"Servable not found for request: {which}")
