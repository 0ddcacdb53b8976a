"""Classify: runs a signature on serialized examples and checks what comes out (classifier.cc)."""

import numpy as np

from serving.errors import Code, ServingError, invalid_argument
from serving.model import Model
from serving.signatures import DEFAULT_SIGNATURE, Signature, type_word

_INPUTS, _CLASSES, _SCORES = "inputs", "classes", "scores"
_TYPES = {_CLASSES: "string", _SCORES: "float"}


def classify(
    model: Model, signature_name: str, examples: np.ndarray, timeout: float | None = None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The labels and the scores of serialized examples, [examples, classes] each, or None where not given."""
    signature = _signature(model, signature_name or DEFAULT_SIGNATURE)
    wanted = [name for name in (_CLASSES, _SCORES) if name in signature.outputs]
    if len(examples) == 0:
        raise invalid_argument("Input is empty.")
    outputs = model.run(signature.name, {_INPUTS: examples}, wanted, timeout)
    for name in wanted:
        _check_output(name, outputs[name], len(examples))
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    return classes, scores


def _signature(model: Model, name: str) -> Signature:
    if name not in model.signatures:
        raise invalid_argument(f"No signature was found with the name: {name}")
    signature = model.signatures[name]
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"No classification inputs found in SignatureDef: {signature.definition}",
        )
    if not signature.outputs.keys() & _TYPES.keys():
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {signature.definition}',
        )
    return signature


def _check_output(name: str, array: np.ndarray, num_examples: int) -> None:
    if array.ndim != 2:
        shape = ",".join(map(str, array.shape))
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got [{shape}]")
    if type_word(array) != _TYPES[name]:
        wanted, given = f"DT_{_TYPES[name].upper()}", f"DT_{type_word(array).upper()}"
        raise invalid_argument(f"Expected {name} Tensor of {wanted}. Got: {given}")
    if len(array) != num_examples:
        raise invalid_argument(f"Expected {name} output batch size of {num_examples}. Got: {len(array)}")
