"""Regress: what a signature must have for it, and what must come out (regressor.cc)."""

from collections.abc import Mapping

import numpy as np

from serving.api.runs import Method, check_input_name, check_number_of_inputs, shape_text
from serving.errors import Code, ServingError, invalid_argument
from serving.wire.signatures import Signature, type_word

REGRESS_METHOD = "tensorflow/serving/regress"

_OUTPUTS = "outputs"


def _output_names(signature: Signature) -> list[str]:
    check_number_of_inputs(signature)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    check_input_name(signature, "regression")
    if _OUTPUTS not in signature.outputs:
        raise ServingError(
            Code.FAILED_PRECONDITION, f"No regression outputs found in SignatureDef: {signature.definition}"
        )
    return [_OUTPUTS]


def _read(outputs: Mapping[str, np.ndarray], num_examples: int) -> np.ndarray:
    array = outputs[_OUTPUTS]
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {shape_text(array)}"
        )
    if len(array) != num_examples:
        raise invalid_argument(f"Input batch size did not match output batch size: {num_examples} vs. {len(array)}")
    if type_word(array) != "float":
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: DT_{type_word(array).upper()}")
    return array.reshape(-1)


REGRESS = Method(REGRESS_METHOD, "regression", _output_names, _read)
"""A value (float32) for each of the serialized examples."""
