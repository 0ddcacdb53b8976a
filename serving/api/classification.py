"""Classify: what a signature must have for it, and what must come out (classifier.cc)."""

from collections.abc import Mapping

import numpy as np

from serving.api.runs import Method, check_input_name, check_number_of_inputs, shape_text
from serving.errors import Code, ServingError, invalid_argument
from serving.wire.signatures import Signature, type_word

CLASSIFY_METHOD = "tensorflow/serving/classify"

_CLASSES, _SCORES = "classes", "scores"
_TYPES = {_CLASSES: "string", _SCORES: "float"}

Answer = tuple[np.ndarray | None, np.ndarray | None]
"""The labels and the scores of serialized examples, [examples, classes] each, or None where not given."""


def _output_names(signature: Signature) -> list[str]:
    check_number_of_inputs(signature)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    check_input_name(signature, "classification")
    wanted = [name for name in (_CLASSES, _SCORES) if name in signature.outputs]
    if not wanted:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {signature.definition}',
        )
    return wanted


def _read(outputs: Mapping[str, np.ndarray], num_examples: int) -> Answer:
    for name, array in outputs.items():
        _check_output(name, array, num_examples)
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    return classes, scores


def _check_output(name: str, array: np.ndarray, num_examples: int) -> None:
    if array.ndim != 2:
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array)}")
    if type_word(array) != _TYPES[name]:
        wanted, given = f"DT_{_TYPES[name].upper()}", f"DT_{type_word(array).upper()}"
        raise invalid_argument(f"Expected {name} Tensor of {wanted}. Got: {given}")
    if len(array) != num_examples:
        raise invalid_argument(f"Expected {name} output batch size of {num_examples}. Got: {len(array)}")


CLASSIFY = Method(CLASSIFY_METHOD, "classification", _output_names, _read)
