"""What the server does for a caller, whichever transport brought the call: it knows no wire format."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np

from serving.classification import classify
from serving.errors import Code, ServingError, invalid_argument
from serving.repository import Repository
from serving.request import Classification, ModelSpec, Prediction, PredictRequest
from serving.signatures import DEFAULT_SIGNATURE, Signature
from serving.versions import Lease, VersionStatus

DecodePredict = Callable[[Mapping[str, Signature]], PredictRequest]


class Service:
    """Predict, Classify and the status of the models in a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def predict(self, spec: ModelSpec, decode: DecodePredict, timeout: float | None = None) -> Prediction:
        """Runs a signature. Decoding waits for the model, whose signatures say what the payload means."""
        with self._lease(spec) as lease:
            request = decode(lease.model.signatures)
            outputs = lease.model.run(request.signature_name, request.inputs, request.output_names, timeout)
            return Prediction(_answering(spec, lease, request.signature_name), outputs)

    def classify(self, spec: ModelSpec, examples: np.ndarray, timeout: float | None = None) -> Classification:
        """Runs a classify signature on serialized tf.Examples."""
        with self._lease(spec) as lease:
            classes, scores = classify(lease.model, spec.signature_name, examples, timeout)
            return Classification(_answering(spec, lease, spec.signature_name), classes, scores)

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """How the versions of a model are, the highest first. As in TensorFlow Serving a label is ignored."""
        statuses = self._repository.statuses(spec.name)
        if spec.version is not None:
            statuses = [status for status in statuses if status.version == spec.version]
        if not statuses:
            which = "any versions" if spec.version is None else f"version {spec.version}"
            raise ServingError(Code.NOT_FOUND, f"Could not find {which} of model {spec.name}")
        return statuses

    def _lease(self, spec: ModelSpec) -> AbstractContextManager[Lease]:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        if spec.label is not None:  # no labels can be configured yet
            raise invalid_argument(f"Unrecognized servable version label: {spec.label}")
        return self._repository.lease(spec.name, spec.version)


def _answering(spec: ModelSpec, lease: Lease, signature_name: str) -> ModelSpec:
    return replace(spec, version=lease.version, signature_name=signature_name or DEFAULT_SIGNATURE)
