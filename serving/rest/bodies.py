"""Request bodies of every media type -> PredictRequests and tf.Examples. Predictions -> response bodies.

A body is read in two steps, as in TensorFlow Serving: parsed before the model is looked up, and decoded with the
signatures of the model.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

import serving.rest.uploads as uploads
from serving.call import Call
from serving.errors import invalid_argument
from serving.models.inference import Method
from serving.rest.content import BYTES, FORM, IMAGE, JSON, NPY, NPZ, PROTOBUF, decompressed, media_type
from serving.rest.npy import read_npy, read_npz, write_npy, write_npz
from serving.rest.routes import Route, signature_name
from serving.rest.uploads import Signatures
from serving.wire import json_examples, json_predict, messages
from serving.wire.json_predict import Layout
from serving.wire.json_text import parse_object
from serving.wire.requests import Classification, ModelSpec, Prediction, PredictRequest, Regression
from serving.wire.signatures import DEFAULT_SIGNATURE, check_names, explaining, find_signature

MESSAGES = {
    "predict": predict_pb2.PredictRequest,
    "classify": classification_pb2.ClassificationRequest,
    "regress": regression_pb2.RegressionRequest,
}
_JSON_KEYS = (b'"instances"', b'"inputs"', b'"examples"')


def body_type(content_type: str, body: bytes) -> str:
    """The media type of a body; JSON unless it is one of the others, as TensorFlow Serving reads every body."""
    name = media_type(content_type)
    if name not in (IMAGE, BYTES, FORM, NPY, NPZ, PROTOBUF):
        return JSON
    # Some clients send whatever they have as octets, also JSON for TensorFlow Serving.
    is_json = name == BYTES and body[:64].lstrip().startswith(b"{") and any(key in body for key in _JSON_KEYS)
    return JSON if is_json else name


@dataclass(frozen=True, slots=True)
class Body:
    """A parsed request body: an object of JSON, a message, or the bytes of any other type.

    The spec has the signature that the body or the query names, and for a message also its version. The contents of
    an archive may be as large as `largest` bytes.
    """

    kind: str
    content_type: str
    spec: ModelSpec
    content: dict[str, object] | Message | bytes
    largest: int


def parse_body(route: Route, call: Call, body: bytes, largest: int) -> Body:
    """Parses what can be parsed without the model. Raises ServingError if it is malformed."""
    received, body = body, decompressed(body, call.header("content-encoding"), largest)
    content_type = call.header("content-type")
    kind = body_type(content_type, body)
    if kind == JSON:
        parse = json_predict.parse_predict if route.action == "predict" else parse_object
        document = parse(body, was_compressed=body is not received)
        spec = route.spec._replace(signature_name=json_predict.decode_signature_name(document))
        return Body(kind, content_type, spec, document, largest)
    spec = route.spec._replace(signature_name=signature_name(route.query))
    if kind != PROTOBUF:
        return Body(kind, content_type, spec, body, largest)
    message = _parse_message(MESSAGES[route.action], body)
    return Body(kind, content_type, _agreed(spec, message), message, largest)


def decode_predict(body: Body, signatures: Signatures) -> tuple[PredictRequest, Layout]:
    """Makes the arrays of a predict request."""
    content, name = body.content, body.spec.signature_name
    if isinstance(content, dict):
        return json_predict.decode_predict(content, name, signatures)
    if isinstance(content, Message):
        return messages.decode_predict(content, signatures, name), Layout.COLUMN
    if body.kind == FORM:
        named, fields = uploads.read_form(content, body.content_type)
        return uploads.bind_form(fields, signatures, name or named)
    if body.kind == NPY:
        return uploads.bind_array(read_npy(content), signatures, name), Layout.COLUMN
    if body.kind != NPZ:
        return uploads.bind_bytes([content], signatures, name)
    signature = find_signature(signatures, name)
    with explaining(signature):
        return PredictRequest(name, read_npz(content, partial(check_names, signature), body.largest)), Layout.COLUMN


def decode_examples(body: Body, signatures: Signatures, method: Method) -> tuple[str, np.ndarray]:
    """Makes the serialized tf.Examples of a classify or regress request. Returns them behind the signature's name.

    Images name no signature, and go to the one that answers the method.
    """
    content, name = body.content, body.spec.signature_name
    if isinstance(content, dict):
        signature = signatures.get(name or DEFAULT_SIGNATURE)
        with explaining(signature):
            return name, json_examples.decode_examples(content)
    if isinstance(content, Message):
        return name, messages.decode_examples(content.input)  # type: ignore[attr-defined]  # both requests have it
    if body.kind in (NPY, NPZ):
        raise invalid_argument(f"Expected examples: {JSON}, {PROTOBUF}, an image, or images in {FORM}.")
    images = [content]
    if body.kind == FORM:
        named, fields = uploads.read_form(content, body.content_type)
        name, images = name or named, [field.content for field in fields]
    return name or uploads.signature_for(method, signatures), uploads.image_examples(images)


def encode_prediction(prediction: Prediction, kind: str, layout: Layout, as_content: bool) -> bytes:
    """Writes the response to a predict request; its layout is for JSON, `as_content` for messages."""
    if kind == JSON:
        return json_predict.encode_predict(prediction.outputs, layout)
    if kind == NPZ:
        return write_npz(prediction.outputs)
    if kind == NPY:
        (array,) = prediction.outputs.values()
        return write_npy(array)
    return messages.encode_predict(prediction, as_content).SerializeToString()


def encode_answer(answer: Classification | Regression, kind: str) -> bytes:
    """Writes the response to a classify or regress request."""
    if kind == PROTOBUF:
        return messages.encode_answer(answer).SerializeToString()
    if isinstance(answer, Classification):
        return json_examples.encode_classify(answer)
    return json_examples.encode_regress(answer)


def check_single_output(request: PredictRequest, signatures: Signatures) -> None:
    """Raises ServingError if the outputs do not fit a .npy file."""
    if len(find_signature(signatures, request.signature_name).outputs) > 1:
        raise invalid_argument(f"There are several outputs, but Accept: {NPY} leaves room for one. {NPZ} has more.")


def _parse_message(message_type: type[Message], body: bytes) -> Message:
    try:
        return message_type.FromString(body)
    except DecodeError as error:
        raise invalid_argument(f"Expected a serialized {message_type.DESCRIPTOR.full_name}") from error


def _agreed(spec: ModelSpec, message: Message) -> ModelSpec:
    """Returns the spec of the address with what the message adds. Raises ServingError if they differ."""
    if not message.HasField("model_spec"):
        return spec
    other = messages.decode_spec(message)
    _check("model", spec.name, other.name or spec.name)
    if other.signature_name:
        _check("signature", spec.signature_name or other.signature_name, other.signature_name)
        spec = spec._replace(signature_name=other.signature_name)
    if other.version is None and not other.label:
        return spec
    if spec.version is None and spec.label is None:
        return spec._replace(version=other.version, label=other.label)
    _check("version", spec.version or spec.label, other.version or other.label)
    return spec


def _check(noun: str, addressed: object, named: object) -> None:
    if addressed != named:
        raise invalid_argument(f"The address names the {noun} {addressed}, and the message {named}.")
