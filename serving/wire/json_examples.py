"""TensorFlow Serving's JSON <-> tf.Examples and what a model says of them, for Classify and Regress."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2

from serving.errors import ServingError, invalid_argument
from serving.wire.json_tensors import decode_base64, encode_tensor, is_base64
from serving.wire.json_text import type_name, value_text, write, write_array
from serving.wire.requests import LARGEST_EXPANSION, Classification, Regression

_FLOAT_MAX = float(np.finfo(np.float32).max)
_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def decode_examples(document: Mapping[str, Any]) -> np.ndarray:
    """The serialized examples of a request, each behind the context."""
    context = _example(document["context"]).SerializeToString() if "context" in document else b""
    return with_context(context, [_example(each).SerializeToString() for each in _listed(document)])


def with_context(context: bytes, examples: Sequence[bytes]) -> np.ndarray:
    """Serialized examples, each behind the context of all: it parses as the union of both.

    Raises ServingError where the context is repeated too often for its length.
    """
    if len(context) * len(examples) > LARGEST_EXPANSION:
        raise invalid_argument(
            f"A context of {len(context)} bytes for {len(examples)} examples: repeated for each it may have "
            f"{LARGEST_EXPANSION} bytes"
        )
    array = np.empty(len(examples), object)
    array[:] = [context + example for example in examples]
    return array


def encode_classify(classification: Classification) -> bytes:
    """The answer: for each example the pairs of label and score."""
    rows = [[(_text(label), score) for label, score in row] for row in classification.rows()]
    if classification.scores is None or np.isfinite(classification.scores).all():
        return b'{"results":' + write(rows) + b"}"
    texts = [b"[" + b",".join(_pair(*pair) for pair in row) + b"]" for row in rows]
    return b'{"results":[' + b",".join(texts) + b"]}"


def encode_regress(regression: Regression) -> bytes:
    """The answer: a value for each example."""
    return b'{"results":' + write_array(regression.values) + b"}"


def _text(label: bytes) -> str:
    return label.decode("utf-8", "replace")


def _pair(label: str, score: np.float32) -> bytes:
    return b"[" + write(label) + b"," + encode_tensor(np.asarray(score)) + b"]"


def _listed(document: Mapping[str, Any]) -> list[Any]:
    if "examples" not in document:
        raise _format_error(document, "When method is classify, key 'examples' is expected and was not found")
    listed = document["examples"]
    if not isinstance(listed, list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not listed:
        raise _format_error(document, "'examples' value is an empty array")
    return listed


def _example(value: Any) -> Any:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        try:
            feature = example.features.feature[name]
        except UnicodeEncodeError as error:
            raise invalid_argument(f"Feature: {name} has a name that is not UTF-8") from error
        for element in content if isinstance(content, list) else [content]:
            _add(element, name, feature)
    return example


def _add(element: Any, name: str, feature: Any) -> None:
    if element is None or isinstance(element, list) or (isinstance(element, dict) and not is_base64(element)):
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {type_name(element)}")
    kind, value = _value(element, name)
    given = feature.WhichOneof("kind")
    if given not in (None, kind):
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {_KINDS[given]}")
    getattr(feature, kind).value.append(value)


def _value(element: Any, name: str) -> tuple[str, Any]:
    if isinstance(element, dict):
        return "bytes_list", decode_base64(element)
    if isinstance(element, str):
        return "bytes_list", element.encode("utf-8", "surrogateescape")
    if isinstance(element, float):
        return "float_list", _float(element)
    if element >= 2**63:
        raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    return "int64_list", int(element)


def _float(value: float) -> float:
    if np.isfinite(value) and abs(value) > _FLOAT_MAX:
        raise invalid_argument(f"Cannot convert JSON value: {value_text(value)} to float without loss of precision.")
    return value


def _format_error(document: Mapping[str, Any], complaint: str) -> ServingError:
    return invalid_argument(f"JSON Value: {value_text(document)} {complaint}")
