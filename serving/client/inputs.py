"""Values as callers have them -> the arrays of a signature, or the features of tf.Examples."""

from __future__ import annotations

import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeGuard

import numpy as np

from serving.wire.signatures import DTYPES, Signature, TensorInfo

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from PIL.Image import Image as PillowImage

Image: TypeAlias = "os.PathLike[str] | bytes | PillowImage"
"""A file, its bytes, or an image of Pillow."""

Value: TypeAlias = "ArrayLike | Image | Sequence[ArrayLike | Image]"
Inputs: TypeAlias = "Value | Mapping[str, Value]"
Example: TypeAlias = Mapping[str, Value]
Features: TypeAlias = Mapping[str, list[bytes | int | float]]


class Examples(NamedTuple):
    """The features of tf.Examples, and the features that all of them share."""

    features: Sequence[Features]
    context: Features | None = None


def are_arrays(inputs: Inputs) -> TypeGuard[Mapping[str, np.ndarray]]:
    """Whether all inputs are arrays with names. Such inputs are sent unchanged."""
    # isinstance(..., dict) is fast; isinstance(..., Mapping) is not.
    return isinstance(inputs, dict | Mapping) and all(isinstance(value, np.ndarray) for value in inputs.values())


def to_arrays(inputs: Inputs, signature: Signature) -> dict[str, np.ndarray]:
    """Converts each input to an array. A value without a name goes to the only input of the signature.

    Raises:
        ValueError: The signature has no input of that name, or the values make no array of its dtype.
        OSError: A file cannot be read.
    """
    names = ", ".join(sorted(signature.inputs)) or "none"
    if not isinstance(inputs, Mapping):
        if len(signature.inputs) != 1:
            raise ValueError(f"signature {signature.name} takes several inputs: give a dict of {names}")
        inputs = dict.fromkeys(signature.inputs, inputs)
    for name in inputs:
        if name not in signature.inputs:
            raise ValueError(f"signature {signature.name} has no input {name}; its inputs: {names}")
    return {name: _to_array(value, signature.inputs[name]) for name, value in inputs.items()}


def to_examples(examples: Sequence[Example], context: Example | None) -> Examples:
    """Converts examples, and the features that they share, to features of one type each.

    Raises:
        ValueError: A feature holds values of several types, or of a type that a tf.Example cannot hold.
        OSError: A file cannot be read.
    """
    return Examples([_to_features(each) for each in examples], None if context is None else _to_features(context))


def _to_array(value: Value, info: TensorInfo) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if _is_image(value):
        array = _image_array(value, info)
        is_one_example = info.shape is not None and array.ndim == len(info.shape) - 1
        return array[np.newaxis] if is_one_example else array
    dtype = DTYPES[info.dtype].numpy
    if isinstance(value, list | tuple) and any(map(_is_image, value)):
        return np.stack([_image_array(each, info) if _is_image(each) else np.asarray(each, dtype) for each in value])
    return np.asarray(value, dtype)


def _image_array(image: Image, info: TensorInfo) -> np.ndarray:
    if info.dtype == "string":
        return np.array(_encode_image(image), object)
    return _read_pixels(image, info.shape[-1] if info.shape else None).astype(DTYPES[info.dtype].numpy)


def _is_image(value: object) -> TypeGuard[Image]:
    module = sys.modules.get("PIL.Image")  # a caller with an image of Pillow has imported it
    return isinstance(value, os.PathLike | bytes) or (module is not None and isinstance(value, module.Image))


def _encode_image(image: Image) -> bytes:
    """The bytes of a file, unchanged; an image of Pillow becomes a PNG."""
    if isinstance(image, os.PathLike):
        return pathlib.Path(image).read_bytes()
    if isinstance(image, bytes):
        return image
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _read_pixels(image: Image, channels: int | None) -> np.ndarray:
    """uint8 [height, width, channels] at the image's own size: grey if there is to be one channel, else RGB."""
    import PIL.Image

    if isinstance(image, os.PathLike | bytes):
        image = PIL.Image.open(io.BytesIO(_encode_image(image)))
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., np.newaxis] if channels == 1 else pixels


def _to_features(example: Example) -> Features:
    return {name: _to_feature(name, value) for name, value in example.items()}


_INTEGERS = (int, np.integer, np.bool_)
_FEATURE_TYPES: Sequence[tuple[tuple[type, ...], Callable[..., bytes | int | float]]] = (
    (_INTEGERS, int),
    ((*_INTEGERS, float, np.floating), float),
    ((bytes,), bytes),
)


def _to_feature(name: str, value: object) -> list[bytes | int | float]:
    if isinstance(value, np.ndarray):
        value = value.reshape(-1).tolist()
    if isinstance(value, str) or _is_image(value):
        value = [value]
    values = list(value) if isinstance(value, Iterable) else [value]
    encoded = list(map(_encode, values))
    for types, convert in _FEATURE_TYPES:
        if all(isinstance(each, types) for each in encoded):
            return list(map(convert, encoded))
    names = ", ".join(sorted({type(each).__name__ for each in values}))
    raise ValueError(f"feature {name} must be integers, floats or bytes, and is of type {names}")


def _encode(value: object) -> object:
    if isinstance(value, str):
        return value.encode()
    return _encode_image(value) if _is_image(value) else value
