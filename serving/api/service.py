"""The methods of PredictionService and ModelService over the models in a repository; knows no wire format."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from serving.background import Periodic
from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument
from serving.models.inference import CLASSIFY, REGRESS, Method, find_task, find_tasks, infer
from serving.options import Options
from serving.repository import config
from serving.repository.config import ModelConfig
from serving.repository.loader import Loader
from serving.repository.repository import Repository
from serving.repository.versions import Lease
from serving.telemetry.gauges import Gauges
from serving.telemetry.metrics import Metrics
from serving.telemetry.request_log import RequestLog
from serving.wire.requests import (
    Classification,
    ModelSpec,
    Prediction,
    PredictRequest,
    Regression,
    Task,
    VersionStatus,
)
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature

logger = logging.getLogger("serving")


class Service:
    """Models that are loaded, followed on disk and run as options say; `with Service(options) as service:`.

    Raises ServingError where a file that an option names cannot be followed.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self.metrics = Metrics()
        self.request_log = RequestLog(options, self.metrics)
        self._loader = Loader(options, self.metrics)
        self.repository = Repository(self._loader, options)
        self.gauges = Gauges(self.repository.uses)
        self.metrics.registry.register(self.gauges)
        self.repository.on_configure(
            lambda configs: self.request_log.configure({each.name: each.logging for each in configs})
        )
        self._config_poller = Periodic(
            "follow --model_config_file", self._read_config_file, options.model_config_file_poll_wait_seconds
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop(self._options.shutdown_grace_seconds)

    def start(self) -> None:
        """Loads the models. Raises ServingError where one has no version that loads."""
        options = self._options
        if options.model_config_file:
            self.repository.start(config.read(options.model_config_file))
            if options.model_config_file_poll_wait_seconds > 0:
                self._config_poller.start()
        else:
            self.repository.start([ModelConfig(options.model_name, Path(options.model_base_path).absolute())])

    def stop_following(self) -> None:
        """Takes no more changes from the file of configurations."""
        self._config_poller.stop()

    def stop(self, timeout: float = 0) -> bool:
        """Unloads the models once their requests have ended. Returns whether all ended in that many seconds."""
        self.stop_following()
        ended = self.repository.stop(timeout)
        if ended:
            self._loader.close()
        self.request_log.stop()
        return ended

    @contextmanager
    def lease(self, spec: ModelSpec, call: Call) -> Iterator["LeasedModel"]:
        """Holds the version that a call means for as long as the context is open.

        Raises ServingError where it does not exist or does not answer.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        if self.repository.knows(spec.name):
            call.model = spec.name
        with self.repository.lease(spec.name, spec.version, spec.label) as lease:
            call.version = str(lease.version)
            yield LeasedModel(spec, lease, call, self.metrics)

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """The states of a model's versions, the highest first. As in TensorFlow Serving a label is ignored."""
        statuses = self.repository.statuses(spec.name)
        if spec.version is not None:
            statuses = [status for status in statuses if status.version == spec.version]
        if not statuses:
            which = "any versions" if spec.version is None else f"version {spec.version}"
            raise ServingError(Code.NOT_FOUND, f"Could not find {which} of model {spec.name}")
        return statuses

    def reload(self, configs: Sequence[ModelConfig], is_cancelled: Callable[[], bool]) -> None:
        """Serves other models, and returns when the new ones have a version that answers."""
        self.repository.reload(configs, lambda: not is_cancelled())

    def _read_config_file(self) -> None:
        self.repository.reload(config.read(self._options.model_config_file), lambda: False)


class LeasedModel:
    """A version of a model during one call: arrays in, arrays out. Each method raises what the run raises."""

    def __init__(self, spec: ModelSpec, lease: Lease, call: Call, metrics: Metrics) -> None:
        self._spec = ModelSpec(spec.name, lease.version, spec.label)
        self._model = lease.model
        self._call = call
        self._metrics = metrics

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by name."""
        return self._model.signatures

    @property
    def version(self) -> int:
        """The number of the version."""
        version = self._spec.version
        assert version is not None
        return version

    def predict(self, request: PredictRequest) -> Prediction:
        """Runs a signature on tensors."""
        num_rows = max((len(array) for array in request.inputs.values() if array.ndim), default=1)
        with self._run("Predict", num_rows):
            outputs = self._model.run(request.signature_name, request.inputs, request.output_names, self._call)
        return Prediction(self._answered_by(request.signature_name), outputs)

    def classify(self, signature_name: str, examples: np.ndarray) -> Classification:
        """Runs a classify signature on serialized tf.Examples."""
        classes, scores = self._infer_one("Classify", CLASSIFY, signature_name, examples)
        return Classification(self._answered_by(signature_name), classes, scores)

    def regress(self, signature_name: str, examples: np.ndarray) -> Regression:
        """Runs a regress signature on serialized tf.Examples."""
        values = self._infer_one("Regress", REGRESS, signature_name, examples)
        return Regression(self._answered_by(signature_name), values)

    def multi_inference(self, tasks: Sequence[Task], examples: np.ndarray) -> list[Classification | Regression]:
        """Classifies and regresses the same serialized tf.Examples in one run."""
        found = find_tasks(self._model, tasks)
        with self._run("MultiInference", len(examples)):
            answers = infer(self._model, found, examples, self._call)
        specs = [self._answered_by(task.spec.signature_name)._replace(label=task.spec.label) for task in tasks]
        self._call.signature = specs[0].signature_name
        return [
            Classification(spec, *answer) if method is CLASSIFY else Regression(spec, answer)
            for spec, answer, (method, _) in zip(specs, answers, found, strict=True)
        ]

    def _infer_one(self, method: str, task: Method, signature_name: str, examples: np.ndarray) -> Any:
        with self._run(method, len(examples)):
            tasks = [find_task(self._model, task, signature_name)]
            (answer,) = infer(self._model, tasks, examples, self._call)
        return answer

    @contextmanager
    def _run(self, method: str, num_examples: int) -> Iterator[None]:
        call = self._call
        self._metrics.record_examples(self._spec.name, num_examples)
        call.run_started = time.perf_counter()
        yield
        call.run_ended = time.perf_counter()
        self._metrics.record_run(self._spec.name, method, call.run_ended - call.run_started)

    def _answered_by(self, signature_name: str) -> ModelSpec:
        self._call.signature = signature_name or DEFAULT_SIGNATURE
        return self._spec._replace(signature_name=self._call.signature)
