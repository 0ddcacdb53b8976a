"""The signatures of a model, and the requests that fit them, with the texts of predict_util.cc."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

import ml_dtypes
import numpy as np

from serving.errors import Code, ServingError, invalid_argument

DEFAULT_SIGNATURE = "serving_default"
MOST_DIMENSIONS = 64  # of a NumPy array

_LEAST_RANK_CHECKED = 3  # rows of what convolutions of one dimension take
_MOST_NAMES = 16  # that a hint lists; gRPC cuts texts after 1024 characters


class DType(NamedTuple):
    """A dtype: its number in tensorflow.DataType, and the field of a TensorProto for its values.

    The field holds `stored` values, which are narrower or wider than those of the array for some dtypes.
    """

    number: int
    numpy: np.dtype[Any]
    field: str
    stored: np.dtype[Any]


def _dtype(number: int, numpy: type, field: str, stored: type | None = None) -> DType:
    return DType(number, np.dtype(numpy), field, np.dtype(stored or numpy))


DTYPES = {
    "float": _dtype(1, np.float32, "float_val"),
    "double": _dtype(2, np.float64, "double_val"),
    "half": _dtype(19, np.float16, "half_val", np.uint16),
    "bfloat16": _dtype(14, ml_dtypes.bfloat16, "half_val", np.uint16),
    "int8": _dtype(6, np.int8, "int_val", np.int32),
    "int16": _dtype(5, np.int16, "int_val", np.int32),
    "int32": _dtype(3, np.int32, "int_val", np.int32),
    "int64": _dtype(9, np.int64, "int64_val"),
    "uint8": _dtype(4, np.uint8, "int_val", np.int32),
    "uint16": _dtype(17, np.uint16, "int_val", np.int32),
    "uint32": _dtype(22, np.uint32, "uint32_val"),
    "uint64": _dtype(23, np.uint64, "uint64_val"),
    "bool": _dtype(10, np.bool_, "bool_val"),
    "complex64": _dtype(8, np.complex64, "scomplex_val", np.float32),
    "complex128": _dtype(18, np.complex128, "dcomplex_val", np.float64),
    "string": _dtype(7, np.object_, "string_val"),
}
"""The dtypes by TensorFlow's names for them (DataTypeString in framework/types.cc), which its error texts use."""

DTYPE_NAMES = {dtype.number: name for name, dtype in DTYPES.items()}
_NAMES_BY_NUMPY = {dtype.numpy: name for name, dtype in DTYPES.items()}


def dtype_name(array: np.ndarray) -> str:
    """Returns TensorFlow's name for the dtype of an array. Arrays of bytes or str are strings."""
    dtype = array.dtype
    return "string" if dtype.kind in "OSU" else _NAMES_BY_NUMPY.get(dtype) or str(dtype)


def string_array(values: Sequence[bytes]) -> np.ndarray:
    """Returns strings as an array of objects: in one of NumPy's own kind each takes the memory of the longest."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a signature: its name in the graph, its dtype, its declared shape."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Feature:
    """A feature of a tf.Example: its dtype, how many values, and whether there must be any."""

    dtype: str
    num_values: int
    is_required: bool


@dataclass(frozen=True)
class Signature:
    """A way to call a model. Inputs with a default may be left out; `definition` is the SignatureDef.

    `features` are those of the tf.Examples that it parses, by name.
    """

    name: str
    method_name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    defaults: Mapping[str, np.ndarray] = field(default_factory=dict)
    definition: Any = None
    features: Mapping[str, Feature] = field(default_factory=dict)


# Requests that fit


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """Returns the signature of this name, or the default one. Raises ServingError if there is none."""
    key = name or DEFAULT_SIGNATURE
    if key not in signatures:
        raise invalid_argument(f'Serving signature name: "{key}" not found in signature def')
    return signatures[key]


def bind_inputs(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays by the names of the tensors that they feed."""
    check_names(signature, inputs.keys())
    arrays = {
        alias: inputs[alias] if alias in inputs else signature.defaults[alias] for alias in sorted(signature.inputs)
    }
    check_tensors(signature, {alias: (dtype_name(array), array.shape) for alias, array in arrays.items()})
    return {signature.inputs[alias].name: array for alias, array in arrays.items()}


def check_names(signature: Signature, names: Set[str]) -> None:
    """Raises ServingError unless these are the inputs of the signature. Those with a default may be missing."""
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
    """Raises ServingError if inputs have other dtypes or ranks than those of the signature."""
    for position, alias in enumerate(sorted(signature.inputs)):
        wanted = signature.inputs[alias].dtype
        dtype = given[alias][0] if alias in given else wanted
        if dtype != wanted:  # FunctionCallFrame::SetArgs in framework/function.cc
            raise invalid_argument(f"Expects arg[{position}] to be {wanted} but {dtype} is provided")
    # Declared shapes are not enforced, as in TensorFlow Serving. But a convolution of oneDNN ends the process where it
    # gets another rank than it wants, so inputs that may reach one must have theirs.
    for alias, (_, sizes) in given.items():
        shape = signature.inputs[alias].shape
        if shape is not None and len(shape) >= _LEAST_RANK_CHECKED and len(sizes) != len(shape):
            text = ",".join(map(str, sizes))
            raise invalid_argument(f"Expected input {alias} to have {len(shape)} dimensions, but its shape is [{text}]")


def bind_outputs(signature: Signature, names: Sequence[str]) -> Sequence[str]:
    """Returns the outputs to compute: those that a request names, or all."""
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


# Hints


@contextmanager
def explaining(signature: Signature | None) -> Iterator[None]:
    """Adds a hint to errors: what the signature takes. Without a signature, errors pass unchanged."""
    try:
        yield
    except ServingError as error:
        if signature is None or error.hint or error.code not in (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED):
            raise
        raise ServingError(error.code, error.message, inputs_text(signature), signature.name) from error


def fits(signature: Signature, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether arrays have the shapes that the signature declares."""
    return all(_fits(info.shape, inputs[name].shape) for name, info in signature.inputs.items() if name in inputs)


def inputs_text(signature: Signature) -> str:
    """Describes the inputs of a signature, with dtypes and shapes, and the features that it parses."""
    inputs = _listed(f"{name}: {_type_text(info)}" for name, info in sorted(signature.inputs.items()))
    text = f'Inputs of signature "{signature.name}": {inputs}.'
    if not signature.features:
        return text
    features = _listed(f"{name}: {_feature_text(each)}" for name, each in sorted(signature.features.items()))
    return f"{text} Features of a tf.Example: {features}."


def helpful_text(error: ServingError, model_path: str = "") -> str:
    """Returns the text of an error with its hint. REST's path of the model adds where a working body is."""
    if not error.hint:
        return error.message
    if not model_path:
        return f"{error.message}\n{error.hint}"
    name = error.signature_name
    query = "" if name == DEFAULT_SIGNATURE else f"?signature_name={quote(name, safe='')}"
    return f"{error.message}\n{error.hint} A body that fits: GET {model_path}/example{query}"


def _fits(declared: Sequence[int | None] | None, shape: Sequence[int]) -> bool:
    if declared is None:
        return True
    pairs = zip(declared, shape, strict=False)
    return len(declared) == len(shape) and all(size in (None, given) for size, given in pairs)


def _type_text(info: TensorInfo) -> str:
    if info.shape is None:
        return f"{info.dtype} of any shape"
    return f"{info.dtype} [{','.join('?' if size is None else str(size) for size in info.shape)}]"


def _feature_text(feature: Feature) -> str:
    number = "" if feature.num_values == 1 else f" [{feature.num_values}]"
    return f"{feature.dtype}{number}{'' if feature.is_required else ' (may be left out)'}"


def _listed(texts: Iterable[str]) -> str:
    texts = list(texts)
    more = [] if len(texts) <= _MOST_NAMES else [f"{len(texts) - _MOST_NAMES} more"]
    return ", ".join(texts[:_MOST_NAMES] + more)
