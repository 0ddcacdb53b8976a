"""TensorFlow Serving's JSON <-> tf.Examples and a model's answers to them, for Classify and Regress."""

from collections.abc import Mapping, Sequence

import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.example.feature_pb2 import Feature

from serving.errors import invalid_argument
from serving.wire.json_tensors import decode_base64, encode_tensor, is_base64
from serving.wire.json_text import document_error, type_name, value_text, write, write_array
from serving.wire.requests import LARGEST_EXPANSION, Classification, Regression
from serving.wire.signatures import string_array

_FLOAT_MAX = float(np.finfo(np.float32).max)


def decode_examples(document: Mapping[str, object]) -> np.ndarray:
    """Returns the serialized examples of a request, each behind the context."""
    if "examples" not in document:
        raise document_error(document, "When method is classify, key 'examples' is expected and was not found")
    context = _example(document["context"]) if "context" in document else b""
    listed = document["examples"]
    if not isinstance(listed, list):
        raise document_error(document, "Expecting 'examples' value to be an list/array")
    if not listed:
        raise document_error(document, "'examples' value is an empty array")
    return with_context(context, [_example(each) for each in listed])


def with_context(context: bytes, examples: Sequence[bytes]) -> np.ndarray:
    """Returns serialized examples, each behind the context of all: it parses as the union of both.

    Raises ServingError if the context is repeated too often for its length.
    """
    if len(context) * len(examples) > LARGEST_EXPANSION:
        raise invalid_argument(
            f"A context of {len(context)} bytes for {len(examples)} examples: repeated for each it may have "
            f"{LARGEST_EXPANSION} bytes"
        )
    return string_array([context + example for example in examples])


def encode_classify(classification: Classification) -> bytes:
    """Returns the answer: the pairs of label and score per example."""
    rows = [[(label.decode("utf-8", "replace"), score) for label, score in row] for row in classification.rows()]
    if classification.scores is None or np.isfinite(classification.scores).all():
        return b'{"results":' + write(rows) + b"}"
    texts = [[b"[%b,%b]" % (write(label), encode_tensor(np.asarray(score))) for label, score in row] for row in rows]
    return b'{"results":[' + b",".join(b"[%b]" % b",".join(row) for row in texts) + b"]}"


def encode_regress(regression: Regression) -> bytes:
    """Returns the answer: a value per example."""
    return b'{"results":' + write_array(regression.values) + b"}"


def _example(value: object) -> bytes:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(value)}")
    example = Example()
    for name, content in value.items():
        try:
            feature = example.features.feature[name]
        except UnicodeEncodeError as error:
            raise invalid_argument(f"Feature: {name} has a name that is not UTF-8") from error
        for element in content if isinstance(content, list) else [content]:
            _add(element, name, feature)
    return example.SerializeToString()


def _add(element: object, name: str, feature: Feature) -> None:
    kind, value = _value(element, name)
    given = feature.WhichOneof("kind")
    if given not in (None, kind):
        expected = given.removesuffix("_list")
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {expected}")
    getattr(feature, kind).value.append(value)


def _value(element: object, name: str) -> tuple[str, bytes | float]:
    """Returns the field of a Feature for an element, and its value there."""
    if isinstance(element, dict) and is_base64(element):
        return "bytes_list", decode_base64(element)
    if isinstance(element, str):
        return "bytes_list", element.encode("utf-8", "surrogateescape")
    if isinstance(element, float):
        if np.isfinite(element) and abs(element) > _FLOAT_MAX:
            text = value_text(element)
            raise invalid_argument(f"Cannot convert JSON value: {text} to float without loss of precision.")
        return "float_list", element
    if isinstance(element, int):
        if element >= 2**63:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64_list", int(element)
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {type_name(element)}")
