"""Classify and Regress: one input of serialized examples, run once for one or several signatures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import Code, ServingError, invalid_argument
from serving.models.model import Model
from serving.wire.hints import knowing_features
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature

INPUTS = "inputs"
"""The name that the input of such a signature has."""


@dataclass(frozen=True)
class Method:
    """What is done with a signature: the outputs that it needs, and what its answer is, each with its checks."""

    name: str
    noun: str
    output_names: Callable[[Signature], Sequence[str]]
    read: Callable[[Mapping[str, np.ndarray], int], Any]
    """Outputs by name and the number of examples -> the answer."""


def infer(
    model: Model,
    tasks: Sequence[tuple[Method, Signature]],
    examples: np.ndarray,
    timeout: float | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[Any]:
    """Runs all tasks at once. Returns the answer of each."""
    if model.checks_method_names:
        for method, signature in tasks:
            _check_method_name(method, signature)
    wanted = [_wanted_tensors(method, signature) for method, signature in tasks]
    if len(examples) == 0:
        raise invalid_argument("Input is empty.")
    # A TF2 export has a placeholder for each signature, and TensorFlow Serving refuses to run two at once.
    feeds = {signature.inputs[INPUTS].name: examples for _, signature in tasks}
    fetches = sorted({tensor for tensors in wanted for tensor in tensors.values()})
    with knowing_features(signature for _, signature in tasks):
        outputs = model.runner.run(feeds, fetches, timeout, cancelled)
    by_tensor = dict(zip(fetches, outputs, strict=True))
    return [
        method.read({name: by_tensor[tensor] for name, tensor in tensors.items()}, len(examples))
        for (method, _), tensors in zip(tasks, wanted, strict=True)
    ]


def infer_one(
    model: Model,
    method: Method,
    signature_name: str,
    examples: np.ndarray,
    timeout: float | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Any:
    """Runs one signature."""
    name = signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise invalid_argument(f"No signature was found with the name: {name}")
    (answer,) = infer(model, [(method, model.signatures[name])], examples, timeout, cancelled)
    return answer


def check_number_of_inputs(signature: Signature) -> None:
    """Raises ServingError unless there is one input."""
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")


def check_input_name(signature: Signature, noun: str) -> None:
    """Raises ServingError unless the input has the name that the method wants."""
    if INPUTS not in signature.inputs:
        raise ServingError(Code.FAILED_PRECONDITION, f"No {noun} inputs found in SignatureDef: {signature.definition}")


def shape_text(array: np.ndarray) -> str:
    """TensorFlow's text for a shape."""
    return "[" + ",".join(map(str, array.shape)) + "]"


def _check_method_name(method: Method, signature: Signature) -> None:
    if signature.method_name != method.name:
        raise invalid_argument(
            f"Expected {method.noun} signature method_name to be {method.name}. Was: {signature.method_name}"
        )


def _wanted_tensors(method: Method, signature: Signature) -> dict[str, str]:
    return {name: signature.outputs[name].name for name in method.output_names(signature)}
