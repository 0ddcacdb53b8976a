"""What a caller may want to know whose request does not fit a signature: the inputs, and where a working body is."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

import numpy as np

from serving.errors import Code, ServingError
from serving.wire.signatures import DEFAULT_SIGNATURE, Feature, Signature, TensorInfo

_MOST_NAMES = 16  # that are told; gRPC cuts texts after 1024 characters


@contextmanager
def knowing(signature: Signature) -> Iterator[None]:
    """Lets errors that the arguments of a call may be the cause of know which signature they were for."""
    try:
        yield
    except ServingError as error:
        if error.code in (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED) and error.signature is None:
            error.signature = signature
        raise


@contextmanager
def knowing_misfits(signature: Signature, inputs: Mapping[str, np.ndarray]) -> Iterator[None]:
    """The same for a run, which has many ways to fail: where shapes are not those declared, or tf.Examples are read."""
    try:
        yield
    except ServingError as error:
        misfits = (not _fits(info, inputs[name]) for name, info in signature.inputs.items() if name in inputs)
        if error.code is Code.INVALID_ARGUMENT and (signature.features or any(misfits)):
            error.signature = signature
        raise


@contextmanager
def knowing_features(signatures: Iterable[Signature]) -> Iterator[None]:
    """The same for a run of several over tf.Examples: the first of which it is known what they parse."""
    try:
        yield
    except ServingError as error:
        if error.code is Code.INVALID_ARGUMENT and error.signature is None:
            error.signature = next((each for each in signatures if each.features), None)
        raise


def inputs_text(signature: Signature) -> str:
    """The inputs of a signature, with their types and shapes, and the features that it parses."""
    inputs = _listed(f"{name}: {_type_text(info)}" for name, info in sorted(signature.inputs.items()))
    text = f'Inputs of signature "{signature.name}": {inputs}.'
    if not signature.features:
        return text
    features = _listed(f"{name}: {_feature_text(each)}" for name, each in sorted(signature.features.items()))
    return f"{text} Features of a tf.Example: {features}."


def helpful_text(error: ServingError, model_path: str = "") -> str:
    """The text of an error, and after it what helps; REST's path of the model says where a working body is."""
    if error.signature is None:
        return error.message
    hint = inputs_text(error.signature)
    if model_path:
        name = error.signature.name
        query = "" if name == DEFAULT_SIGNATURE else f"?signature_name={quote(name, safe='')}"
        hint += f" A body that fits: GET {model_path}/example{query}"
    return f"{error.message}\n{hint}"


def _fits(info: TensorInfo, array: np.ndarray) -> bool:
    if info.shape is None:
        return True
    pairs = zip(info.shape, array.shape, strict=False)
    return len(info.shape) == array.ndim and all(wanted in (None, size) for wanted, size in pairs)


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
