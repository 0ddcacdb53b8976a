"""What a call asks for and what it answers, in no wire format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class ModelSpec(NamedTuple):
    """Which model a call means. A version or a label, never both; neither means the latest version."""

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
    """The answer to Predict: the version that gave it, and its outputs by name."""

    spec: ModelSpec
    outputs: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Classification:
    """The answer to Classify: labels (bytes) and scores (float32), each [examples, classes] or not given."""

    spec: ModelSpec
    classes: np.ndarray | None
    scores: np.ndarray | None

    def rows(self) -> list[list[tuple[bytes, np.float32]]]:
        """One list of (label, score) an example; what the model does not give is empty or zero."""
        given = self.scores if self.classes is None else self.classes
        assert given is not None
        classes = np.full(given.shape, b"", object) if self.classes is None else self.classes
        scores = np.zeros(given.shape, np.float32) if self.scores is None else self.scores
        return [list(zip(*row, strict=True)) for row in zip(classes, scores, strict=True)]


@dataclass(frozen=True)
class Regression:
    """The answer to Regress: a value (float32) for each example."""

    spec: ModelSpec
    values: np.ndarray


@dataclass(frozen=True)
class Metadata:
    """The answer to GetModelMetadata: the version that gave it, and its SignatureDefs by name."""

    spec: ModelSpec
    definitions: Mapping[str, Any]
