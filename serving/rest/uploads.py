"""Images, bytes, forms and arrays -> the inputs of a signature, which is found by what it takes if nothing names it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field as PlainField
from python_multipart.multipart import File, FormParser, parse_options_header

from serving.errors import ServingError, invalid_argument
from serving.models.inference import INPUTS, Method
from serving.rest.content import FORM
from serving.wire.json_predict import Layout
from serving.wire.json_tensors import decode_tensor
from serving.wire.messages import encode_image_example
from serving.wire.requests import PredictRequest
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo, find_signature, inputs_text, string_array

Signatures = Mapping[str, Signature]

IMAGE_SIGNATURE = "image_bytes"
"""The signature for encoded images in the export contract."""
SIGNATURE_FIELD = "signature_name"
"""The field of a form that names the signature."""

_MOST_FIELDS = 4096
_FORM_ERROR = "Expected a body of multipart/form-data: "


class Field(NamedTuple):
    """A field of a form; a file if a file name came with it."""

    name: str
    content: bytes
    is_file: bool


def read_form(body: bytes, content_type: str) -> tuple[str, list[Field]]:
    """Parses multipart/form-data (RFC 7578) into the signature name, if a field holds one, and the other fields.

    Raises ServingError if the body is malformed, or has no fields.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise invalid_argument("Content-Type multipart/form-data names no boundary.")
    fields, ends = list[Field](), list[bool]()

    def add(part: PlainField | File) -> None:
        if len(fields) == _MOST_FIELDS:
            raise FormParserError(f"it has more than {_MOST_FIELDS} fields")
        fields.append(_field(part))

    config = {"MAX_MEMORY_FILE_SIZE": float("inf"), "UPLOAD_ERROR_ON_BAD_CTE": True}  # no file goes to the disk
    try:
        FormParser(FORM, add, add, lambda: ends.append(True), boundary, config=config).write(body)
    except (FormParserError, ValueError) as error:
        raise invalid_argument(_FORM_ERROR + str(error)) from error
    if not ends:
        raise invalid_argument(_FORM_ERROR + "it ends too early")
    named = [field for field in fields if field.name == SIGNATURE_FIELD and not field.is_file]
    others = [field for field in fields if field.name != SIGNATURE_FIELD or field.is_file]
    if not others:
        raise invalid_argument("Expected a field for each input in multipart/form-data, but there is none.")
    return (named[0].content.decode("utf-8", "replace") if named else ""), others


def bind_array(array: np.ndarray, signatures: Signatures, name: str) -> PredictRequest:
    """Makes a request of one array, which needs a signature with one input."""
    signature = find_signature(signatures, name)
    required = _required_inputs(signature)
    if len(required) != 1:
        raise invalid_argument(f"One array will not do; a .npz file names several. {inputs_text(signature)}")
    return PredictRequest(name, {required[0]: array})


def bind_bytes(values: Sequence[bytes], signatures: Signatures, name: str) -> tuple[PredictRequest, Layout]:
    """Makes a request of bytes, such as encoded images, with one value per row."""
    signature = find_signature(signatures, name) if name else _signature_of_bytes(signatures)
    required = _required_inputs(signature)
    if len(required) != 1 or signature.inputs[required[0]].dtype != "string":
        raise invalid_argument(f"Images and other bytes need one input of strings. {inputs_text(signature)}")
    array = _shaped(values, signature.inputs[required[0]])
    return PredictRequest(signature.name, {required[0]: array}), _layout([array])


def bind_form(fields: Sequence[Field], signatures: Signatures, name: str) -> tuple[PredictRequest, Layout]:
    """Makes a request of a form: a field is an input, and has as many rows as it has occurrences.

    Strings are bytes, everything else is a value in JSON. A single field that is named like no input is for the
    signature that takes bytes.
    """
    columns: dict[str, list[Field]] = {}
    for field in fields:
        columns.setdefault(field.name, []).append(field)
    signature = _signature_of_fields(columns, signatures, name)
    if signature is None:
        return bind_bytes([field.content for field in fields], signatures, name)
    inputs = {alias: _column(alias, listed, signature) for alias, listed in columns.items()}
    return PredictRequest(signature.name, inputs), _layout(inputs.values())


def image_examples(images: Iterable[bytes]) -> np.ndarray:
    """Returns serialized tf.Examples of encoded images."""
    return string_array([encode_image_example(image) for image in images])


def signature_for(method: Method, signatures: Signatures) -> str:
    """Returns the name of the only signature that answers Classify or Regress."""
    return _only_one([each for each in signatures if _answers(method, signatures[each])], signatures, method.noun)


def _field(part: PlainField | File) -> Field:
    name = (part.field_name or b"").decode("utf-8", "replace")
    if isinstance(part, PlainField):
        return Field(name, part.value or b"", is_file=False)
    part.file_object.seek(0)
    return Field(name, part.file_object.read(), is_file=True)


def _signature_of_bytes(signatures: Signatures) -> Signature:
    """Finds the export contract's signature for images, or the only one that takes one value of bytes per row."""
    fitting = {name: signature for name, signature in signatures.items() if _takes_bytes(signature)}
    if IMAGE_SIGNATURE in fitting:
        return fitting[IMAGE_SIGNATURE]
    # Serialized tf.Examples are bytes as well, and have this name by convention.
    others = [name for name, signature in fitting.items() if INPUTS not in signature.inputs]
    return signatures[_only_one(others or list(fitting), signatures, "one value of bytes")]


def _signature_of_fields(columns: Mapping[str, list[Field]], signatures: Signatures, name: str) -> Signature | None:
    fitting = [each for each, signature in signatures.items() if _fits(columns, signature)]
    if name or fitting:
        found = find_signature(signatures, name or _only_one(fitting, signatures, "these fields"))
        return found if len(columns) > 1 or columns.keys() & found.inputs.keys() else None
    if len(columns) > 1:
        raise invalid_argument(f"No signature is for the fields {', '.join(columns)}. {_all_inputs(signatures)}")
    return None


def _only_one(names: Sequence[str], signatures: Signatures, purpose: str) -> str:
    """Returns the default signature, if it is among these names, or the only name. Raises ServingError otherwise."""
    if DEFAULT_SIGNATURE in names:
        return DEFAULT_SIGNATURE
    if not names:
        raise invalid_argument(f"No signature is for {purpose}. {_all_inputs(signatures)}")
    if len(names) > 1:
        listed = ", ".join(sorted(names))
        raise invalid_argument(f"Several signatures are for {purpose}: add ?signature_name= to say which of {listed}.")
    return names[0]


def _all_inputs(signatures: Signatures) -> str:
    return " ".join(inputs_text(each) for _, each in sorted(signatures.items()))


def _required_inputs(signature: Signature) -> list[str]:
    return sorted(signature.inputs.keys() - signature.defaults.keys())


def _takes_bytes(signature: Signature) -> bool:
    required = _required_inputs(signature)
    infos = [signature.inputs[name] for name in required]
    return len(infos) == 1 and infos[0].dtype == "string" and len(infos[0].shape or ()) < 2


def _answers(method: Method, signature: Signature) -> bool:
    try:
        method.output_names(signature)
    except ServingError:
        return False
    return signature.inputs[INPUTS].dtype == "string"


def _fits(columns: Mapping[str, list[Field]], signature: Signature) -> bool:
    """Whether the inputs have these names, strings where there are files, and rows where there are several."""
    if not set(_required_inputs(signature)) <= columns.keys() <= signature.inputs.keys():
        return False
    pairs = [(signature.inputs[alias], fields) for alias, fields in columns.items()]
    has_wrong_file = any(info.dtype != "string" and any(field.is_file for field in fields) for info, fields in pairs)
    return not has_wrong_file and all(info.shape != () or len(fields) == 1 for info, fields in pairs)


def _column(alias: str, fields: Sequence[Field], signature: Signature) -> np.ndarray:
    if alias not in signature.inputs:
        raise invalid_argument(f"The field {alias} is no input. {inputs_text(signature)}")
    info = signature.inputs[alias]
    if info.dtype == "string":
        return _shaped([field.content for field in fields], info)
    values = [_json_value(field) for field in fields]
    return decode_tensor(values[0] if info.shape == () and len(values) == 1 else values, info.dtype)


def _json_value(field: Field) -> object:
    try:
        text = field.content.decode()
        value: object = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # fails at half of a surrogate pair, which no text holds
        return value
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"The field {field.name} is no value in JSON, such as 0.5 or [1, 2].") from error


def _shaped(values: Sequence[bytes], info: TensorInfo) -> np.ndarray:
    """Returns the values as rows of the declared rank, or a scalar if the signature takes one."""
    rank = 1 if info.shape is None else len(info.shape)
    if rank == 0 and len(values) == 1:
        return string_array(values).reshape(())
    return string_array(values).reshape(len(values), *[1] * (rank - 1))


def _layout(arrays: Iterable[np.ndarray]) -> Layout:
    return Layout.ROW if all(array.ndim for array in arrays) else Layout.COLUMN
