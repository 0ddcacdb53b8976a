"""What a caller may want to know whose request does not fit a signature: the inputs, and where a working body is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

import numpy as np

from serving.errors import Code, ServingError
from serving.models.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

_MOST_INPUTS = 16  # that are told; gRPC cuts texts after 1024 characters


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
    """The same for a run, which has many ways to fail, where these inputs have not the shapes that are declared."""
    try:
        yield
    except ServingError as error:
        misfits = (not _fits(info, inputs[name]) for name, info in signature.inputs.items() if name in inputs)
        if error.code is Code.INVALID_ARGUMENT and any(misfits):
            error.signature = signature
        raise


def inputs_text(signature: Signature) -> str:
    """The inputs of a signature, with their types and shapes."""
    listed = [f"{name}: {_type_text(info)}" for name, info in sorted(signature.inputs.items())]
    more = [] if len(listed) <= _MOST_INPUTS else [f"{len(listed) - _MOST_INPUTS} more"]
    return f'Inputs of signature "{signature.name}": {", ".join(listed[:_MOST_INPUTS] + more)}.'


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
