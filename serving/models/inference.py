"""Classify, Regress and MultiInference over tf.Examples (classifier.cc, regressor.cc, multi_inference.cc)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument
from serving.models.model import Model
from serving.wire.requests import Task
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, dtype_name, explaining

INPUTS = "inputs"
"""The name of the one input of a signature for Classify or Regress."""

_CLASSES, _SCORES, _OUTPUTS = "classes", "scores", "outputs"
CLASSIFY_TYPES = {_CLASSES: "string", _SCORES: "float"}


@dataclass(frozen=True)
class Method:
    """The demands of Classify or Regress on a signature, and its reading of the outputs. Both functions check."""

    name: str
    noun: str
    output_names: Callable[[Signature], Sequence[str]]
    read: Callable[[Mapping[str, np.ndarray], int], Any]
    """Outputs by name and the number of examples -> the answer."""


def infer(
    model: Model,
    tasks: Sequence[tuple[Method, Signature]],
    examples: np.ndarray,
    call: Call | None = None,
) -> list[Any]:
    """Runs all tasks at once. Returns the answer of each."""
    if model.checks_method_names:
        for method, signature in tasks:
            _check_method_name(method, signature)
    tensors = [
        {name: signature.outputs[name].name for name in method.output_names(signature)} for method, signature in tasks
    ]
    if len(examples) == 0:
        raise invalid_argument("Input is empty.")
    # A TF2 export has a placeholder per signature, and TensorFlow Serving refuses to run two at once.
    feeds = {signature.inputs[INPUTS].name: examples for _, signature in tasks}
    fetches = sorted({tensor for names in tensors for tensor in names.values()})
    with explaining(next((signature for _, signature in tasks if signature.features), None)):
        outputs = model.runner.run(feeds, fetches, call or Call())
    by_tensor = dict(zip(fetches, outputs, strict=True))
    return [
        method.read({name: by_tensor[tensor] for name, tensor in names.items()}, len(examples))
        for (method, _), names in zip(tasks, tensors, strict=True)
    ]


def find_task(model: Model, method: Method, signature_name: str) -> tuple[Method, Signature]:
    """The task of Classify or Regress for one signature. Raises ServingError where there is no such signature."""
    name = signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise invalid_argument(f"No signature was found with the name: {name}")
    return method, model.signatures[name]


def find_tasks(model: Model, tasks: Sequence[Task]) -> list[tuple[Method, Signature]]:
    """The methods and signatures that tasks name. Raises ServingError where they cannot be run together."""
    found: dict[str, tuple[Method, Signature]] = {}
    for task in tasks:
        name = task.spec.signature_name or DEFAULT_SIGNATURE
        if not task.spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.spec.name != tasks[0].spec.name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        if name in found:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        if name not in model.signatures:
            raise invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method_name not in _METHODS:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        found[name] = (_METHODS[task.method_name], model.signatures[name])
    return list(found.values())


def _check_method_name(method: Method, signature: Signature) -> None:
    if signature.method_name != method.name:
        raise invalid_argument(
            f"Expected {method.noun} signature method_name to be {method.name}. Was: {signature.method_name}"
        )


def _check_number_of_inputs(signature: Signature) -> None:
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")


def _check_input_name(signature: Signature, noun: str) -> None:
    if INPUTS not in signature.inputs:
        raise ServingError(Code.FAILED_PRECONDITION, f"No {noun} inputs found in SignatureDef: {signature.definition}")


def _classify_outputs(signature: Signature) -> list[str]:
    _check_number_of_inputs(signature)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    _check_input_name(signature, "classification")
    names = [name for name in (_CLASSES, _SCORES) if name in signature.outputs]
    if not names:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {signature.definition}',
        )
    return names


def _read_classes(outputs: Mapping[str, np.ndarray], num_examples: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The labels and the scores, [examples, classes] each; None for those that the signature does not give."""
    for name, array in outputs.items():
        if array.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape_text(array)}")
        if dtype_name(array) != CLASSIFY_TYPES[name]:
            expected, got = f"DT_{CLASSIFY_TYPES[name].upper()}", f"DT_{dtype_name(array).upper()}"
            raise invalid_argument(f"Expected {name} Tensor of {expected}. Got: {got}")
        if len(array) != num_examples:
            raise invalid_argument(f"Expected {name} output batch size of {num_examples}. Got: {len(array)}")
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    return classes, scores


def _regress_outputs(signature: Signature) -> list[str]:
    _check_number_of_inputs(signature)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    _check_input_name(signature, "regression")
    if _OUTPUTS not in signature.outputs:
        raise ServingError(
            Code.FAILED_PRECONDITION, f"No regression outputs found in SignatureDef: {signature.definition}"
        )
    return [_OUTPUTS]


def _read_values(outputs: Mapping[str, np.ndarray], num_examples: int) -> np.ndarray:
    array = outputs[_OUTPUTS]
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape_text(array)}"
        )
    if len(array) != num_examples:
        raise invalid_argument(f"Input batch size did not match output batch size: {num_examples} vs. {len(array)}")
    if dtype_name(array) != "float":
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: DT_{dtype_name(array).upper()}")
    return array.reshape(-1)


def _shape_text(array: np.ndarray) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


CLASSIFY = Method("tensorflow/serving/classify", "classification", _classify_outputs, _read_classes)
REGRESS = Method("tensorflow/serving/regress", "regression", _regress_outputs, _read_values)
_METHODS = {method.name: method for method in (CLASSIFY, REGRESS)}
