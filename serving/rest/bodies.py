"""The bodies of REST: which decoder a Content-Type asks for, and which encoder an Accept header."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import ServingError, invalid_argument
from serving.http.requests import Request
from serving.models.inference import CLASSIFY, REGRESS
from serving.rest import uploads
from serving.rest.compression import decompressed_body
from serving.rest.media_types import BYTES, FORM, IMAGE, JSON, NPY, NPZ, PROTOBUF, choose_type, media_type
from serving.rest.multipart import read_form
from serving.rest.npy import array_names, read_npy, read_npz, write_npy, write_npz
from serving.rest.protobuf_bodies import agree, read_message
from serving.rest.routes import signature_name
from serving.rest.signature_choice import Signatures, signature_for
from serving.wire import json_examples, json_predict, messages
from serving.wire.binding import check_names, find_signature
from serving.wire.hints import knowing
from serving.wire.json_predict import Layout
from serving.wire.json_text import parse_object
from serving.wire.requests import Classification, ModelSpec, Prediction, PredictRequest, Regression
from serving.wire.signatures import DEFAULT_SIGNATURE

Read = Callable[[Signatures], tuple[PredictRequest, Layout]]
SignaturesOf = Callable[[ModelSpec], Signatures]
"""The signatures of a version. Raises ServingError where there is none."""

_JSON_KEYS = (b'"instances"', b'"inputs"', b'"examples"')


@dataclass
class PredictBody:
    """What a predict request holds; to read the rest of it takes the signatures of its model.

    It is answered in `answer_type`, where that is JSON in the layout that is known once it is decoded.
    """

    spec: ModelSpec
    read: Read
    answer_type: str
    layout: Layout = Layout.COLUMN
    request: PredictRequest | None = None
    """What it was decoded to, once it is."""

    def decode(self, signatures: Signatures) -> PredictRequest:
        """The arrays of the request, of the types that the signature declares."""
        request, self.layout = self.read(signatures)
        self.request = request
        if self.answer_type == NPY and len(find_signature(signatures, request.signature_name).outputs) > 1:
            raise invalid_argument(f"There are several outputs, but Accept: {NPY} leaves room for one. {NPZ} has more.")
        return request


@dataclass(frozen=True)
class ExamplesBody:
    """What a classify or regress request holds. It is answered in `answer_type`."""

    spec: ModelSpec
    serialized: np.ndarray
    answer_type: str


def read_predict(spec: ModelSpec, request: Request) -> PredictBody:
    """What a predict request holds. Raises ServingError where its body is not what its Content-Type says.

    What is none of the types known here is JSON, as TensorFlow Serving takes every body for.
    """
    body = decompressed_body(request)
    kind = _body_type(request, body)
    if kind not in _READERS:
        return PredictBody(spec, _read_json(body), _answer_type(request, (JSON, NPY, NPZ, PROTOBUF)))
    spec = spec._replace(signature_name=signature_name(request.query))
    if kind == PROTOBUF:
        message = read_message("predict", body)
        spec = agree(spec, message)
        read = _read_message(message, spec.signature_name)
        return PredictBody(spec, read, _answer_type(request, (PROTOBUF, JSON, NPY, NPZ)))
    read = _READERS[kind](body, request.headers[b"content-type"], spec.signature_name)
    return PredictBody(spec, read, _answer_type(request, (JSON, NPY, NPZ, PROTOBUF)))


def write_prediction(prediction: Prediction, body: PredictBody, as_content: bool = False) -> bytes:
    """The answer to a predict request, in the type that it is to have; messages as `messages` writes them."""
    if body.answer_type == JSON:
        return json_predict.encode_predict(prediction.outputs, body.layout)
    if body.answer_type == PROTOBUF:
        message: bytes = messages.encode_predict(prediction, as_content).SerializeToString()
        return message
    if body.answer_type == NPZ:
        return write_npz(prediction.outputs)
    (array,) = prediction.outputs.values()
    return write_npy(array)


def read_examples(action: str, spec: ModelSpec, request: Request, signatures_of: SignaturesOf) -> ExamplesBody:
    """What a classify or regress request holds. Raises ServingError as `read_predict` does.

    Images name no signature, and go to the one that answers the method.
    """
    body = decompressed_body(request)
    kind = _body_type(request, body)
    if kind not in _READERS:
        document = parse_object(body)
        named = spec._replace(signature_name=json_predict.decode_signature_name(document))
        serialized = _decode_examples(document, named, signatures_of)
        return ExamplesBody(named, serialized, _answer_type(request, (JSON, PROTOBUF)))
    spec = spec._replace(signature_name=signature_name(request.query))
    if kind == PROTOBUF:
        message = read_message(action, body)
        serialized = messages.decode_examples(message.input)
        return ExamplesBody(agree(spec, message), serialized, _answer_type(request, (PROTOBUF, JSON)))
    spec, images = _read_images(kind, spec, request, body)
    if not spec.signature_name:
        spec = spec._replace(signature_name=signature_for(_METHODS[action], signatures_of(spec)))
    return ExamplesBody(spec, uploads.image_examples(images), _answer_type(request, (JSON, PROTOBUF)))


def write_answer(answer: Classification | Regression, body: ExamplesBody) -> bytes:
    """The answer to a classify or regress request, in the type that it is to have."""
    in_json, in_protobuf = _WRITERS[type(answer)]
    written: bytes = in_json(answer) if body.answer_type == JSON else in_protobuf(answer).SerializeToString()
    return written


def _body_type(request: Request, body: bytes) -> str:
    header = request.headers.get(b"content-type", b"")
    if header == b"application/json":
        return JSON
    kind = media_type(header)
    # Some clients send whatever they have as octets, JSON for TensorFlow Serving among it.
    return JSON if kind == BYTES and _looks_like_json(body) else kind


def _looks_like_json(body: bytes) -> bool:
    return body[:64].lstrip().startswith(b"{") and any(key in body for key in _JSON_KEYS)


def _answer_type(request: Request, offered: tuple[str, ...]) -> str:
    return choose_type(request.headers.get(b"accept", b""), offered)


def _read_json(body: bytes) -> Read:
    document = json_predict.parse_predict(body)
    json_predict.decode_signature_name(document)

    def read(signatures: Signatures) -> tuple[PredictRequest, Layout]:
        request = json_predict.decode_predict(document, signatures)
        return request, json_predict.decode_layout(document)

    return read


def _read_message(message: Any, name: str) -> Read:
    return lambda signatures: (messages.decode_predict(message, signatures, name), Layout.COLUMN)


def _read_bytes(body: bytes, content_type: bytes, name: str) -> Read:
    return lambda signatures: uploads.bind_bytes([body], signatures, name)


def _read_form(body: bytes, content_type: bytes, name: str) -> Read:
    fields = read_form(body, content_type)
    return lambda signatures: uploads.bind_form(fields, signatures, name)


def _read_npy(body: bytes, content_type: bytes, name: str) -> Read:
    array = read_npy(body)
    return lambda signatures: (uploads.bind_array(array, signatures, name), Layout.COLUMN)


def _read_npz(body: bytes, content_type: bytes, name: str) -> Read:
    names = array_names(body)

    def read(signatures: Signatures) -> tuple[PredictRequest, Layout]:
        signature = signatures.get(name or DEFAULT_SIGNATURE)
        if signature is None:
            return PredictRequest(name, {}), Layout.COLUMN
        with knowing(signature):
            check_names(signature, names)
        return PredictRequest(name, read_npz(body)), Layout.COLUMN

    return read


def _read_images(kind: str, spec: ModelSpec, request: Request, body: bytes) -> tuple[ModelSpec, list[bytes]]:
    if kind in (NPY, NPZ):
        raise invalid_argument(f"Expected examples: {JSON}, {PROTOBUF}, an image, or images in {FORM}.")
    if kind != FORM:
        return spec, [body]
    named, fields = uploads.split_form(read_form(body, request.headers[b"content-type"]))
    return spec._replace(signature_name=spec.signature_name or named), [field.content for field in fields]


def _decode_examples(document: Mapping[str, Any], spec: ModelSpec, signatures_of: SignaturesOf) -> np.ndarray:
    try:
        return json_examples.decode_examples(document)
    except ServingError as error:
        with suppress(ServingError):  # where there is no such model, what is wrong with the body is told first
            error.signature = signatures_of(spec).get(spec.signature_name or DEFAULT_SIGNATURE)
        raise


_METHODS = {"classify": CLASSIFY, "regress": REGRESS}
_READERS: Mapping[str, Any] = {
    IMAGE: _read_bytes,
    BYTES: _read_bytes,
    FORM: _read_form,
    NPY: _read_npy,
    NPZ: _read_npz,
    PROTOBUF: None,  # what it says of the model is to be heard before
}
_WRITERS: Mapping[type, Any] = {
    Classification: (json_examples.encode_classify, messages.encode_classify),
    Regression: (json_examples.encode_regress, messages.encode_regress),
}
