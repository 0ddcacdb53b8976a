"""Which signature a body is for that names none: images, bytes and forms go where they are taken."""

from collections.abc import Collection, Mapping, Sequence

from serving.errors import ServingError, invalid_argument
from serving.models.inference import INPUTS, Method
from serving.wire.hints import inputs_text
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature

IMAGE_SIGNATURE = "image_bytes"
"""The signature for encoded images in the export contract."""

Signatures = Mapping[str, Signature]


def signature_of_bytes(signatures: Signatures) -> Signature:
    """The export contract's for images, or the only one that takes one value of bytes a row."""
    fitting = {name: signature for name, signature in signatures.items() if takes_bytes(signature)}
    if IMAGE_SIGNATURE in fitting:
        return fitting[IMAGE_SIGNATURE]
    # Serialized tf.Examples are bytes as well, and have this name by convention.
    others = [name for name, signature in fitting.items() if INPUTS not in signature.inputs]
    return signatures[only_one(others or list(fitting), signatures, "one value of bytes")]


def signature_for(method: Method, signatures: Signatures) -> str:
    """The name of the only one that answers Classify or Regress."""
    fitting = [name for name, signature in signatures.items() if _answers(method, signature)]
    return only_one(fitting, signatures, method.noun)


def only_one(names: Sequence[str], signatures: Signatures, purpose: str) -> str:
    """The default signature, if it is among these names, or the only name. Raises ServingError otherwise."""
    if DEFAULT_SIGNATURE in names:
        return DEFAULT_SIGNATURE
    if len(names) == 1:
        return names[0]
    if names:
        raise invalid_argument(
            f"Several signatures are for {purpose}: add ?signature_name= to say which of {_joined(names)}."
        )
    raise invalid_argument(f"No signature is for {purpose}. {describe_all(signatures)}")


def required_inputs(signature: Signature) -> list[str]:
    """The inputs that have no default."""
    return sorted(signature.inputs.keys() - signature.defaults.keys())


def takes_bytes(signature: Signature) -> bool:
    """Whether it takes one value of bytes a row, such as an encoded image, and needs nothing else."""
    required = required_inputs(signature)
    if len(required) != 1:
        return False
    info = signature.inputs[required[0]]
    return info.dtype == "string" and (info.shape is None or len(info.shape) < 2)


def describe_all(signatures: Signatures) -> str:
    """What each signature takes, to be read by people."""
    return " ".join(inputs_text(each) for _, each in sorted(signatures.items()))


def _answers(method: Method, signature: Signature) -> bool:
    try:
        method.output_names(signature)
    except ServingError:
        return False
    return signature.inputs[INPUTS].dtype == "string"


def _joined(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
