"""What the server does for a caller, whichever transport brought the call: it knows no wire format."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from serving.api.classification import CLASSIFY
from serving.api.multi_inference import Task, bind_tasks
from serving.api.regression import REGRESS
from serving.api.runs import infer, infer_one
from serving.errors import Code, ServingError, invalid_argument
from serving.repository.config import ModelConfig
from serving.repository.repository import Repository
from serving.repository.versions import Lease
from serving.telemetry.metrics import Metrics
from serving.telemetry.request_log import RequestLog
from serving.wire.requests import Classification, Metadata, ModelSpec, Prediction, PredictRequest, Regression
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature
from serving.wire.version_status import ModelStatus, VersionStatus

DecodePredict = Callable[[Mapping[str, Signature]], PredictRequest]
Cancelled = Callable[[], bool] | None
"""Asked before a run: whether the caller has given up meanwhile."""


class Service:
    """The methods of PredictionService and ModelService over the models in a repository. Timeouts are in seconds.

    Which transport brought a call, and in which words, only the transport can count and log: with what is here.
    """

    def __init__(self, repository: Repository, metrics: Metrics, request_log: RequestLog) -> None:
        self._repository = repository
        self.metrics = metrics
        self.request_log = request_log

    def predict(
        self, spec: ModelSpec, decode: DecodePredict, timeout: float | None = None, cancelled: Cancelled = None
    ) -> Prediction:
        """Runs a signature. Decoding waits for the model, whose signatures say what the payload means."""
        with self._lease(spec) as lease:
            request = decode(lease.model.signatures)
            self.metrics.record_examples(spec.name, _num_rows(request.inputs))
            with self._measured(spec, "Predict"):
                outputs = lease.model.run(
                    request.signature_name, request.inputs, request.output_names, timeout, cancelled
                )
            return Prediction(_answering(spec, lease, request.signature_name), outputs)

    def classify(
        self, spec: ModelSpec, examples: np.ndarray, timeout: float | None = None, cancelled: Cancelled = None
    ) -> Classification:
        """Runs a classify signature on serialized tf.Examples."""
        with self._lease(spec) as lease:
            self.metrics.record_examples(spec.name, len(examples))
            with self._measured(spec, "Classify"):
                classes, scores = infer_one(lease.model, CLASSIFY, spec.signature_name, examples, timeout, cancelled)
            return Classification(_answering(spec, lease, spec.signature_name), classes, scores)

    def regress(
        self, spec: ModelSpec, examples: np.ndarray, timeout: float | None = None, cancelled: Cancelled = None
    ) -> Regression:
        """Runs a regress signature on serialized tf.Examples."""
        with self._lease(spec) as lease:
            self.metrics.record_examples(spec.name, len(examples))
            with self._measured(spec, "Regress"):
                values = infer_one(lease.model, REGRESS, spec.signature_name, examples, timeout, cancelled)
            return Regression(_answering(spec, lease, spec.signature_name), values)

    def multi_inference(
        self,
        tasks: Sequence[Task],
        examples: np.ndarray,
        timeout: float | None = None,
        cancelled: Cancelled = None,
    ) -> list[Classification | Regression]:
        """Classifies and regresses the same serialized tf.Examples, in one run."""
        first = tasks[0].spec if tasks else ModelSpec("")
        with self._lease(first) as lease:
            bound = bind_tasks(lease.model, tasks)
            self.metrics.record_examples(first.name, len(examples))
            with self._measured(first, "MultiInference"):
                answers = infer(lease.model, bound, examples, timeout, cancelled)
            specs = [_answering(task.spec, lease, task.spec.signature_name) for task in tasks]
            return [
                Classification(spec, *answer) if method is CLASSIFY else Regression(spec, answer)
                for spec, answer, (method, _) in zip(specs, answers, bound, strict=True)
            ]

    def metadata(self, spec: ModelSpec) -> Metadata:
        """The signatures of a model."""
        with self._lease(spec) as lease:
            definitions = {name: each.definition for name, each in lease.model.signatures.items()}
            return Metadata(ModelSpec(spec.name, lease.version), definitions)

    def signatures(self, spec: ModelSpec) -> tuple[int, Mapping[str, Signature]]:
        """The version that a call means, and its signatures by name."""
        with self._lease(spec) as lease:
            return lease.version, lease.model.signatures

    def models(self) -> list[ModelStatus]:
        """Every model that there is or was, by name."""
        return self._repository.models()

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """How the versions of a model are, the highest first. As in TensorFlow Serving a label is ignored."""
        statuses = self._repository.statuses(spec.name)
        if spec.version is not None:
            statuses = [status for status in statuses if status.version == spec.version]
        if not statuses:
            which = "any versions" if spec.version is None else f"version {spec.version}"
            raise ServingError(Code.NOT_FOUND, f"Could not find {which} of model {spec.name}")
        return statuses

    def reload(self, configs: Sequence[ModelConfig], cancelled: Cancelled = None) -> None:
        """Serves other models, and returns when the new ones have a version that answers."""
        self._repository.reload(configs, (lambda: not cancelled()) if cancelled else (lambda: True))

    def knows(self, name: str) -> bool:
        """Whether there is, or was, a model of this name."""
        return self._repository.knows(name)

    @contextmanager
    def _measured(self, spec: ModelSpec, method: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.metrics.record_run(spec.name, method, time.perf_counter() - started)

    def _lease(self, spec: ModelSpec) -> AbstractContextManager[Lease]:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        return self._repository.lease(spec.name, spec.version, spec.label)


def _answering(spec: ModelSpec, lease: Lease, signature_name: str) -> ModelSpec:
    return ModelSpec(spec.name, lease.version, spec.label, signature_name or DEFAULT_SIGNATURE)


def _num_rows(inputs: Mapping[str, np.ndarray]) -> int:
    return max((len(array) for array in inputs.values() if array.ndim), default=1)
