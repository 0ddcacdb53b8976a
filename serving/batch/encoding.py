"""The signature to run, and the value that it takes for an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.example import example_pb2

from serving.client.inputs import to_arrays
from serving.errors import invalid_argument, needing
from serving.models.guard import num_pixels
from serving.wire.images import IMAGE_FEATURE, first_that_fits, gives_labels, takes_strings
from serving.wire.messages import encode_image_example
from serving.wire.signatures import Signature, TensorInfo, inputs_text, string_array

Signatures = Mapping[str, Signature]
Encode = Callable[[bytes, bool], object]
"""Bytes, and whether they are a tf.Example -> one value for the signature. Raises ValueError for a bad image."""


def choose_signature(signatures: Signatures, name: str | None) -> Signature:
    """The named signature; or one that gives labels, takes encoded images, or takes pixels of one size."""
    if name is not None and name not in signatures:
        raise invalid_argument(f"--signature={name} is none of the model's: {', '.join(sorted(signatures))}")
    candidates = [signatures[each] for each in ([name] if name else sorted(signatures))]
    found = first_that_fits(candidates, gives_labels, takes_strings, _takes_pixels)
    if found is not None:
        return found
    raise invalid_argument(
        "no signature takes an image as a string (encoded, or in a tf.Example) or as pixels of one size: export one "
        f"with such an input. {' '.join(map(inputs_text, candidates))}"
    )


def make_encoder(signature: Signature, feature: str | None, max_pixels: int) -> Encode:
    """Returns the function that makes the signature's value of an image, or of a tf.Example with one."""
    (info,) = signature.inputs.values()
    if info.dtype != "string":
        with needing("batch"):
            import PIL  # noqa: F401
        return lambda data, is_example: _pixels(_image_in(data, feature) if is_example else data, signature, max_pixels)
    if not signature.features and not gives_labels(signature):
        return lambda data, is_example: _image_in(data, feature) if is_example else data
    known = [name for name, each in signature.features.items() if each.dtype == "string"]
    names = known if signature.features else [feature or IMAGE_FEATURE]
    name = next((each for each in (feature, IMAGE_FEATURE, *names) if each in names), None)
    return lambda data, is_example: data if is_example else _example(name, data)


def stack(values: Sequence[object], info: TensorInfo) -> np.ndarray:
    """Makes the array that a signature takes of the values of several rows."""
    if info.dtype != "string":
        return np.stack(values)  # type: ignore[arg-type]
    rank = 1 if info.shape is None else len(info.shape)
    return string_array(values).reshape(len(values), *[1] * (rank - 1))  # type: ignore[arg-type]


def _takes_pixels(signature: Signature) -> bool:
    infos = list(signature.inputs.values())
    if len(infos) != 1 or infos[0].dtype not in ("float", "half", "double", "bfloat16", "uint8", "int32", "int64"):
        return False
    shape = infos[0].shape or ()
    return len(shape) == 4 and None not in shape[1:] and shape[-1] in (1, 3)


def _example(name: str | None, data: bytes) -> bytes:
    if name is None:
        raise ValueError("the signature parses tf.Examples without a feature of bytes")
    return encode_image_example(data, name)


def _image_in(data: bytes, feature: str | None) -> bytes:
    name = feature or IMAGE_FEATURE
    try:
        values = example_pb2.Example.FromString(data).features.feature[name].bytes_list.value
    except DecodeError:
        raise ValueError("the record is no tf.Example") from None
    if len(values) != 1:
        raise ValueError(f"the tf.Example has {len(values)} values in feature {name}, which --column may name")
    return bytes(values[0])


def _pixels(data: bytes, signature: Signature, max_pixels: int) -> np.ndarray:
    pixels = num_pixels(data) or 0
    if max_pixels and pixels > max_pixels:
        raise ValueError(f"An image has {pixels} pixels: at most {max_pixels} pixels are decoded")
    try:
        ((array,),) = to_arrays(data, signature).values()
    except Exception as error:  # Pillow lets whatever its many decoders raise pass
        raise ValueError(f"{type(error).__name__}: {error}") from error
    wanted = next(iter(signature.inputs.values())).shape or ()
    if array.shape != wanted[1:]:
        given, taken = ("x".join(map(str, shape)) for shape in (array.shape, wanted[1:]))
        raise ValueError(
            f"the image is {given}, and signature {signature.name} takes {taken} alone: resize the images, or export "
            "a signature that takes encoded ones"
        )
    return np.asarray(array)
