"""MultiInference: several signatures of one model over the same examples, in one run (multi_inference.cc)."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.api.classification import CLASSIFY
from serving.api.regression import REGRESS
from serving.api.runs import Method
from serving.errors import Code, ServingError, invalid_argument
from serving.models.model import Model
from serving.wire.requests import ModelSpec
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature

_METHODS = {method.name: method for method in (CLASSIFY, REGRESS)}


@dataclass(frozen=True)
class Task:
    """A signature and what is to be done with it: the name of Classify's or Regress's method."""

    spec: ModelSpec
    method_name: str


def bind_tasks(model: Model, tasks: Sequence[Task]) -> list[tuple[Method, Signature]]:
    """The methods and signatures that tasks name. Raises ServingError where they can't be run together."""
    bound: dict[str, tuple[Method, Signature]] = {}
    for task in tasks:
        name = task.spec.signature_name or DEFAULT_SIGNATURE
        _check_model_name(task, tasks[0])
        if name in bound:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        if name not in model.signatures:
            raise invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method_name not in _METHODS:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        bound[name] = (_METHODS[task.method_name], model.signatures[name])
    return list(bound.values())


def _check_model_name(task: Task, first: Task) -> None:
    if not task.spec.name:
        raise invalid_argument("Found ModelSpec with an empty model name.")
    if task.spec.name != first.spec.name:
        raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
