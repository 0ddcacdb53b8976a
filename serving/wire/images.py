"""Signatures that take encoded images, and those that label them."""

from collections.abc import Callable, Iterable

from serving.wire.signatures import Signature

IMAGE_FEATURE = "image/encoded"
"""The feature of a tf.Example that holds an encoded image, in the export contract and in TensorFlow's own models."""

_LABELS = {"classes": "string", "scores": "float"}


def gives_labels(signature: Signature) -> bool:
    """Whether a signature is for Classify: tf.Examples in, labels and scores out."""
    return takes_strings(signature) and {name: info.dtype for name, info in signature.outputs.items()} == _LABELS


def takes_strings(signature: Signature) -> bool:
    """Whether the one input of a signature holds strings, such as encoded images, of several rows."""
    infos = list(signature.inputs.values())
    return [info.dtype for info in infos] == ["string"] and infos[0].shape != ()


def first_that_fits(signatures: Iterable[Signature], *tests: Callable[[Signature], bool]) -> Signature | None:
    """Returns the first signature, by name, that passes the first of the tests that any passes."""
    ordered = sorted(signatures, key=lambda signature: signature.name)
    return next((signature for test in tests for signature in ordered if test(signature)), None)
