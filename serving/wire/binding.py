"""Matches what a request names with what a signature declares, with the texts of predict_util.cc."""

from collections.abc import Collection, Mapping, Sequence, Set

import numpy as np

from serving.errors import invalid_argument
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, dtype_name

_LEAST_RANK_CHECKED = 3  # rows of what convolutions of one dimension take


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature of this name, or the default one. Raises ServingError where there is none."""
    key = name or DEFAULT_SIGNATURE
    if key not in signatures:
        raise invalid_argument(f'Serving signature name: "{key}" not found in signature def')
    return signatures[key]


def bind_inputs(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by the names of the tensors that they feed."""
    check_names(signature, inputs.keys())
    arrays = {
        alias: inputs[alias] if alias in inputs else signature.defaults[alias] for alias in sorted(signature.inputs)
    }
    check_tensors(signature, {alias: (dtype_name(array), array.shape) for alias, array in arrays.items()})
    return {signature.inputs[alias].name: array for alias, array in arrays.items()}


def check_names(signature: Signature, names: Set[str]) -> None:
    """Raises ServingError unless these are the inputs of the signature, but for such as have a default."""
    wanted = signature.inputs.keys()
    _check_number(signature, names)
    for alias in sorted(wanted - names - signature.defaults.keys()):
        raise invalid_argument(  # cc/saved_model/util.cc
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request "
            "and no default value provided. Inputs expected to be in the request "
            f"{{{_joined(names)}}}, or default input alias set: {_joined(signature.defaults)}"
        )
    if not names <= wanted:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_joined(names & wanted)}, "
            f"request input: {_joined(names)}"
        )


def check_tensors(signature: Signature, given: Mapping[str, tuple[str, Sequence[int]]]) -> None:
    """Raises ServingError where inputs are of other types, by TensorFlow's words, or ranks than the signature's."""
    for position, alias in enumerate(sorted(signature.inputs)):
        wanted = signature.inputs[alias].dtype
        word = given[alias][0] if alias in given else wanted
        if word != wanted:  # FunctionCallFrame::SetArgs in framework/function.cc
            raise invalid_argument(f"Expects arg[{position}] to be {wanted} but {word} is provided")
    # Declared shapes are not enforced, as in TensorFlow Serving. But a convolution of oneDNN ends the process where it
    # gets another rank than it wants, so inputs that may reach one must have theirs.
    for alias, (_, sizes) in given.items():
        shape = signature.inputs[alias].shape
        if shape is not None and len(shape) >= _LEAST_RANK_CHECKED and len(sizes) != len(shape):
            text = ",".join(map(str, sizes))
            raise invalid_argument(f"Expected input {alias} to have {len(shape)} dimensions, but its shape is [{text}]")


def bind_outputs(signature: Signature, names: Sequence[str]) -> Sequence[str]:
    """The outputs to compute: those named, or all."""
    for position, alias in enumerate(names):
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{_joined(signature.outputs)}}}."
            )
        if alias in names[:position]:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
    return names or sorted(signature.outputs)


def _check_number(signature: Signature, given: Set[str]) -> None:
    wanted = signature.inputs.keys()
    if len(given) > len(wanted) or (len(given) < len(wanted) and not signature.defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({{{_joined(given)}}}) != len({{{_joined(wanted)}}}). "
            f"Sent extra: {{{_joined(given - wanted)}}}. Missing but required: {{{_joined(wanted - given)}}}."
        )


def _joined(names: Collection[str]) -> str:
    return ",".join(sorted(names))
