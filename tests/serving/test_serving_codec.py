"""TensorFlow Serving's JSON, without a server: what is read, what is refused, what is written."""

import base64
import json
import random
import re

import numpy as np
import pytest
from tensorflow.core.example import example_pb2

from serving.errors import Code, ServingError
from serving.wire.json_arrays import parse_number_array
from serving.wire.json_examples import decode_examples
from serving.wire.json_predict import Layout, decode_predict, decode_signature_name, encode_predict, parse_predict
from serving.wire.json_text import error_body, parse_object
from serving.wire.signatures import DTYPES, Signature, TensorInfo

pytestmark = pytest.mark.xdist_group("serving")


def decode(body, **types):
    inputs = {name: TensorInfo(f"{name}:0", dtype, None) for name, dtype in types.items()}
    signature = Signature("serving_default", "", inputs, {})
    document = parse_object(body if isinstance(body, bytes) else body.encode())
    return decode_predict(document, decode_signature_name(document), {"serving_default": signature})[0].inputs


def refusal(function, *arguments, **types):
    with pytest.raises(ServingError) as caught:
        function(*arguments, **types)
    return str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "text", "values"),
    [
        ("float", "[1, 2.5, -3e-3]", [1, 2.5, -3e-3]),
        ("float", "[NaN, Infinity, -Infinity, Inf]", [np.nan, np.inf, -np.inf, np.inf]),
        ("float", "[3.4028234663852886e38, 16777215]", [3.4028234663852886e38, 16777215]),
        ("double", "[0.1, 9007199254740991]", [0.1, 9007199254740991]),
        ("int8", "[1, -128, 300]", [1, -128, 44]),
        ("int16", "[1, 40000]", [1, -25536]),
        ("int32", "[2147483647, -2147483648]", [2147483647, -2147483648]),
        ("int64", "[9007199254740993, -9223372036854775808]", [9007199254740993, -(2**63)]),
        ("uint8", "[255, -1]", [255, 255]),
        ("uint32", "[4294967295]", [4294967295]),
        ("uint64", "[18446744073709551615, 1]", [18446744073709551615, 1]),
        ("bool", "[true, false]", [True, False]),
    ],
)
@pytest.mark.parametrize("layout", ["instances", "inputs"])
def test_numbers_take_the_type_of_the_signature(layout, dtype, text, values):
    array = decode(f'{{"{layout}": {text}}}', x=dtype)["x"]
    assert array.dtype == DTYPES[dtype].numpy
    np.testing.assert_array_equal(array, np.array(values, DTYPES[dtype].numpy))


WRONG_ELEMENTS = [
    ("float", '"x"', "String"),
    ("float", "true", "True"),
    ("float", "null", "Null"),
    ("double", "false", "False"),
    ("int32", "1.0", "Number"),
    ("int32", "2147483648", "Number"),
    ("uint8", "1.0", "Number"),
    ("int64", "9223372036854775808", "Number"),
    ("int64", "true", "True"),
    ("uint32", "-1", "Number"),
    ("uint64", "-1", "Number"),
    ("bool", "1", "Number"),
    ("bool", '"true"', "String"),
    ("string", "1", "Number"),
]


@pytest.mark.parametrize(("dtype", "text", "kind"), WRONG_ELEMENTS)
@pytest.mark.parametrize("company", ["", "1, ", "1.5, "], ids=["alone", "beside-an-integer", "beside-a-float"])
def test_element_of_another_type_is_refused(company, dtype, text, kind):
    message = refusal(decode, f'{{"inputs": [{company}{text}]}}', x=dtype)
    if (company and dtype in ("bool", "string")) or (company == "1.5, " and "int" in dtype):
        first = company.removesuffix(", ")
        assert message == (f"INVALID_ARGUMENT: JSON Value: {first} Type: Number is not of expected type: {dtype}")
    else:
        assert message == f"INVALID_ARGUMENT: JSON Value: {text} Type: {kind} is not of expected type: {dtype}"


@pytest.mark.parametrize(
    ("dtype", "text", "shown"),
    [
        ("float", "16777216", "16777216"),
        ("float", "-16777217", "-16777217"),
        ("float", "1e39", "1e+39"),
        ("double", "9007199254740992", "9007199254740992"),
    ],
)
def test_number_that_the_type_cannot_hold_is_refused(dtype, text, shown):
    assert refusal(decode, f'{{"inputs": [1, {text}]}}', x=dtype) == (
        f"INVALID_ARGUMENT: Cannot convert JSON value: {shown} to {dtype} without loss of precision."
    )


@pytest.mark.parametrize("dtype", ["half", "bfloat16", "uint16", "complex64"])
def test_type_without_json_is_unimplemented(dtype):
    message = f"UNIMPLEMENTED: Conversion of JSON Value: 1.5 to type: {dtype}"
    assert refusal(decode, '{"inputs": [1.5]}', x=dtype) == message
    assert refusal(decode, '{"instances": [1.5]}', x=dtype) == (
        f"INVALID_ARGUMENT: Failed to process element: 0 of 'instances' list. Error: {message}"
    )


def test_of_two_members_of_one_name_the_first_counts():
    assert decode('{"inputs": [1], "inputs": [2, 3]}', x="int32")["x"].tolist() == [1]
    assert decode('{"inputs": {"x": [1], "x": [2]}, "y": {"inputs": 0}}', x="int32")["x"].tolist() == [1]


LARGE_VALUES = np.random.default_rng(0).normal(size=(4, 16, 24)) * 1000
LARGE_LITERALS = {
    "float": np.float32(LARGE_VALUES).tolist(),
    "double": LARGE_VALUES.tolist(),
    "int8": (LARGE_VALUES.astype(np.int64) % 128).tolist(),
    "int32": LARGE_VALUES.astype(np.int64).tolist(),
    "int64": (LARGE_VALUES.astype(np.int64) * 2**40).tolist(),
    "uint8": (LARGE_VALUES.astype(np.int64) % 256).tolist(),
    "uint32": (LARGE_VALUES.astype(np.int64) % 2**32).tolist(),
    "uint64": (np.uint64(LARGE_VALUES.astype(np.int64) % 2**32) + np.uint64(2**63)).tolist(),
}


@pytest.mark.parametrize("dtype", LARGE_LITERALS)
@pytest.mark.parametrize("form", ["instances", "inputs", "rows-of-objects", "columns-of-objects"])
def test_large_arrays_keep_every_digit(form, dtype):
    literals = LARGE_LITERALS[dtype]
    document = {
        "instances": {"instances": literals},
        "inputs": {"inputs": literals},
        "rows-of-objects": {"instances": [{"x": row} for row in literals]},
        "columns-of-objects": {"inputs": {"x": literals}},
    }[form]
    array = decode(json.dumps(document, indent=1), x=dtype)["x"]
    assert array.dtype == DTYPES[dtype].numpy
    np.testing.assert_array_equal(array, np.array(literals, DTYPES[dtype].numpy))


def test_values_at_the_limits_are_exact():
    text = '{"signature_name": "", "inputs": {"x": [16777215, -0.0, 1e-45], "b": [true]}, "other": {"\u00fc": null}}'
    arrays = decode(text, x="float", b="bool")
    assert arrays["x"].tobytes() == np.float32([16777215, -0.0, 1e-45]).tobytes()
    assert arrays["b"].tolist() == [True]


def test_strings_are_utf8_and_base64_objects_are_bytes():
    array = decode('{"instances": ["\u00fc\\u0000", {"b64": "/+8="}, {"b64": "YQ"}]}', x="string")["x"]
    assert array.tolist() == ["\u00fc\0".encode(), b"\xff\xef", b"a"]


@pytest.mark.parametrize("padding", ["=", ""])
@pytest.mark.parametrize("text", ["/+_-", "__--", "//++"], ids=["mixed", "web-safe", "standard"])
def test_both_alphabets_of_base64_are_read(text, padding):
    encoded = text + "_w" + padding + padding
    array = decode(json.dumps({"instances": [{"b64": encoded}]}), x="string")["x"]
    assert array.tolist() == [base64.urlsafe_b64decode(text.translate({43: "-", 47: "_"}) + "_w==")]


def test_bytes_that_are_not_utf8_pass_through():
    assert decode(b'{"instances": ["\xff\x80"]}', x="string")["x"].tolist() == [b"\xff\x80"]


def test_scalar_column_and_nested_rows_keep_their_shape():
    assert decode('{"inputs": {"x": 3}}', x="int64")["x"].shape == ()
    assert decode('{"inputs": {"b64": "YQ=="}}', x="string")["x"].shape == ()
    assert decode('{"instances": [[[1, 2, 3]], [[4, 5, 6]]]}', x="float")["x"].shape == (2, 1, 3)
    assert decode('{"instances": [[], []]}', x="int32")["x"].shape == (2, 0)


def test_rows_of_objects_become_columns():
    arrays = decode(
        '{"instances": [{"a": [1, 2], "b": "x"}, {"b": {"b64": "eQ=="}, "a": [3, 4]}]}', a="int32", b="string"
    )
    np.testing.assert_array_equal(arrays["a"], [[1, 2], [3, 4]])
    assert arrays["b"].tolist() == [b"x", b"y"]


def in_rows(item, reason, key=""):
    return f"Failed to process element: {item}{key} of 'instances' list. Error: INVALID_ARGUMENT: {reason}"


TWO = {"a": "float", "b": "float"}
REQUEST_ERRORS = {
    "not-an-object": ("[1]", TWO, "JSON Value: [\n    1\n] Is not object"),
    "signature-name": (
        '{"signature_name": 5}',
        TWO,
        'JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
        "'signature_name' key must be a string value.",
    ),
    "both-layouts": (
        '{"instances": [], "inputs": 1}',
        TWO,
        'JSON Value: {\n    "instances": [],\n    "inputs": 1\n} Not formatted correctly expecting only one of '
        "'inputs' or 'instances' keys to exist ",
    ),
    "instances-no-list": (
        '{"instances": 1}',
        TWO,
        "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
    ),
    "no-instances": (
        '{"instances": []}',
        TWO,
        "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
    ),
    "plain-rows-for-two": (
        '{"instances": [1]}',
        TWO,
        "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    "plain-column-for-two": (
        '{"inputs": [1]}',
        TWO,
        "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    "missing-column": ('{"inputs": {"a": 1}}', TWO, "Missing named input: b in 'inputs' object."),
    "missing-key": (
        '{"instances": [{"a": 1, "b": 2}, {"a": 1}]}',
        TWO,
        "Failed to process element: 1 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys must be equal to: a,b",
    ),
    "unknown-key": (
        '{"instances": [{"a": 1, "z": 2}]}',
        TWO,
        in_rows(0, "JSON object: does not have named input: z", " key: z"),
    ),
    "list-among-objects": (
        '{"instances": [{"a": 1, "b": 2}, [1]]}',
        TWO,
        "Expecting object but got list at item 1 of input list",
    ),
    "object-among-values": (
        '{"instances": [1, {"a": 1}]}',
        {"a": "float"},
        "Expecting value/list but got object at item 1 of input list",
    ),
    "value-in-object": (
        '{"instances": [{"a": 1, "b": 2}, {"a": "x", "b": 2}]}',
        TWO,
        in_rows(1, 'JSON Value: "x" Type: String is not of expected type: float', " key: a"),
    ),
    "other-size": ('{"instances": [[1, 2], [3]]}', {"a": "float"}, in_rows(1, "Expecting tensor size: 2 but got: 1")),
    "other-shape": (
        '{"instances": [[1, 2], [[3, 4]]]}',
        {"a": "float"},
        in_rows(1, "Expecting shape [2] but got: [1,2]"),
    ),
    "ragged": (
        '{"inputs": [[1, 2], [3]]}',
        {"a": "float"},
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "too-deep": (
        '{"inputs": [1, [2]]}',
        {"a": "float"},
        "Encountered list at unexpected level: 1 expected < 1",
    ),
    "too-flat": (
        '{"inputs": [[1], 2]}',
        {"a": "float"},
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    "no-base64": (
        '{"instances": [{"b64": "a.b="}]}',
        {"a": "string"},
        in_rows(0, "Unable to base64 decode"),
    ),
    "object-for-a-string": (
        '{"inputs": [{"b64": 1}]}',
        {"a": "string"},
        'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data',
    ),
    "object-for-a-number": (
        '{"inputs": [{"b64": "YQ=="}]}',
        {"a": "int32"},
        'JSON Value: {\n    "b64": "YQ=="\n} Type: Object is not of expected type: int32',
    ),
    "signature-without-inputs": ('{"inputs": 1}', {}, "Failed to get input map for signature: DEFAULT"),
}


@pytest.mark.parametrize(("body", "types", "message"), REQUEST_ERRORS.values(), ids=REQUEST_ERRORS)
def test_request_error_is_exactly(body, types, message):
    assert refusal(decode, body, **types) == f"INVALID_ARGUMENT: {message}"


PARSE_ERRORS = {
    "empty": ("", "The document is empty"),
    "blank": (" \n", "The document is empty. at offset: 2"),
    "value": ('{"inputs": x}', "Invalid value. at offset: 11"),
    "name": ('{"a": 1, }', "Missing a name for object member. at offset: 9"),
    "value-in-list": ('{"a": [1, ]}', "Invalid value. at offset: 10"),
    "colon": ('{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
    "comma-in-object": ('{"a": [1] "b": 2}', "Missing a comma or } after an object member. at offset: 10"),
    "behind-a-byte-order-mark": ("\ufeff{x}", "Missing a name for object member. at offset: 4"),
    "behind-a-byte-that-is-not-utf8": ('{"\udcff\udcff": x}', "Invalid value. at offset: 7"),
    "escape": ('{"a": "\\x"}', "Invalid escape character in string. at offset: 7"),
    "hexadecimal": ('{"a": "\\u00zz"}', "Incorrect hex digit after \\u escape in string. at offset: 7"),
    "control-character": ('{"a": "\n"}', "Invalid encoding in string. at offset: 7"),
    "fraction": ('{"a": 1.}', "Miss fraction part in number. at offset: 8"),
    "comma-in-list": ('{"a": ["]}", 1 2]}', "Missing a comma or ] after an array element. at offset: 15"),
    "quotation-mark": ('{"a": "b}', "Missing a closing quotation mark in string. at offset: 9"),
    "offset-is-in-bytes": ('{"\u00fc": x}', "Invalid value. at offset: 7"),
    "far-too-big": ('{"a": ' + "9" * 10_000 + "}", "Number too big to be stored in double. at offset: 6"),
    "too-big": ('{"a": 1e999}', "Number too big to be stored in double. at offset: 6"),
    "lone-surrogate": ('{"a": "\\ud800"}', "The surrogate pair in string is invalid. at offset: 7"),
    "too-deep": ('{"a": ' + "[" * 100_000, "The document is nested too deeply."),
}


@pytest.mark.parametrize(("body", "message"), PARSE_ERRORS.values(), ids=PARSE_ERRORS)
def test_parse_error_is_exactly(body, message):
    encoded = body.encode("utf-8", "surrogateescape")
    assert refusal(parse_object, encoded) == f"INVALID_ARGUMENT: JSON Parse error: {message}"


READ_AS_BY_RAPIDJSON = {
    "not-finite": (b'[NaN, Inf, -Inf, Infinity, "Inf"]', [np.nan, np.inf, -np.inf, np.inf, "Inf"]),
    "text-behind": (b'[1]} "x', [1]),
    "nul-behind": (b"[1]}\0{", [1]),
    "integer-of-more-than-64-bits": (b'[1e0, 18446744073709551616], "n": NaN', [1.0, 2.0**64]),
    "not-utf8-and-not-finite": (b'["\xff", NaN]', ["\udcff", np.nan]),
    "first-of-two": (b'[{"b": 1, "a": 2, "b": 3}], "inputs": 1, "inputs": 2', [{"b": 1, "a": 2}]),
}


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b" \n"], ids=["", "byte-order-mark", "space"])
@pytest.mark.parametrize(("text", "value"), READ_AS_BY_RAPIDJSON.values(), ids=READ_AS_BY_RAPIDJSON)
def test_texts_that_rapidjson_takes_are_read(start, text, value):
    read = parse_object(start + b'{"x": ' + text + b"}")["x"]
    assert repr(read) == repr(value)  # NaN is not equal to itself


def test_error_that_quotes_a_large_request_is_cut():
    error = ServingError(Code.INVALID_ARGUMENT, "\u00fc" * 1_000_000)
    assert error_body(error) == b'{"error":"' + "\u00fc".encode() * 16_384 + b'...TRUNCATED"}'


WRITTEN = {
    "float32": (
        np.float32([0.2, 1 / 3, 1e10, 16777216, 0, -0.0]),
        b"[0.2,0.33333334,10000000000.0,16777216.0,0.0,-0.0]",
    ),
    "float64": (np.float64([0.1, 1 / 3, 1e22]), b"[0.1,0.3333333333333333,1e22]"),
    "not-finite": (np.float32([[np.nan, 0.2], [np.inf, -np.inf]]), b"[[NaN,0.2],[Infinity,-Infinity]]"),
    "scalar": (np.float32(0.2), b"0.2"),
    "scalar-nan": (np.array(np.nan), b"NaN"),
    "int64": (np.int64([2**63 - 1, -1]), b"[9223372036854775807,-1]"),
    "uint64": (np.uint64([2**64 - 1]), b"[18446744073709551615]"),
    "int8": (np.int8([[-1], [2]]), b"[[-1],[2]]"),
    "bool": (np.array([True, False]), b"[true,false]"),
    "string": (np.array([b'"\n', "\u00fc".encode()], object), '["\\"\\n","\u00fc"]'.encode()),
    "not-utf8": (np.array([b"a\xff"], object), '["a\ufffd"]'.encode()),
    "scalar-string": (np.array(b"a\0", object), b'"a\\u0000"'),
    "empty": (np.zeros((2, 0), np.float32), b"[[],[]]"),
    "not-contiguous": (np.arange(6, dtype=np.int32).reshape(2, 3).T, b"[[0,3],[1,4],[2,5]]"),
}


@pytest.mark.parametrize(("array", "text"), WRITTEN.values(), ids=WRITTEN)
def test_written_text_is_exactly(array, text):
    written = encode_predict({"y": array}, Layout.COLUMN)
    if array.dtype == np.float64:
        written = written.replace(b"e+", b"e")  # both are JSON, and both are read as the same number
    assert written == b'{"outputs":' + text + b"}"


def test_every_float32_is_read_back_as_it_was():
    array = np.random.default_rng(0).integers(0, 2**32, 20_000, np.uint32).view(np.float32)
    array = array[np.isfinite(array)]
    written = encode_predict({"y": array}, Layout.COLUMN)
    np.testing.assert_array_equal(np.float32(parse_object(written)["outputs"]), array)


def test_bytes_suffix_means_base64_for_strings_only():
    outputs = {"a_bytes": np.array([b"\xff\0"], object), "n_bytes": np.int32([1])}
    encoded = base64.b64encode(b"\xff\0")
    assert encode_predict(outputs, Layout.ROW) == (
        b'{"predictions":[{"a_bytes":{"b64":"' + encoded + b'"},"n_bytes":1}]}'
    )


NAN_ROW = b'{"i":1,"s":"a","x":[NaN,0.2],"y":-0.5}'
FINITE_ROW = b'{"i":1,"s":"a","x":[1.0,0.2],"y":-0.5}'


@pytest.mark.parametrize(("value", "row"), [(1, FINITE_ROW), (np.nan, NAN_ROW)], ids=["finite", "nan"])
def test_rows_of_several_outputs_are_objects(value, row):
    outputs = {
        "x": np.float32([[value, 0.2], [1, 0.2]]).T.copy().T,  # rows that don't lie together in memory
        "y": np.float64([-0.5, -0.5]),
        "i": np.int64([1, 1]),
        "s": np.array([b"a", b"a"], object),
    }
    assert encode_predict(outputs, Layout.ROW) == b'{"predictions":[' + row + b"," + FINITE_ROW + b"]}"


def test_rows_of_outputs_without_a_finite_one_are_objects():
    outputs = {"a": np.float32([[np.nan], [1]]), "b": np.float64([np.inf, -np.inf])}
    assert (
        encode_predict(outputs, Layout.ROW) == b'{"predictions":[{"a":[NaN],"b":Infinity},{"a":[1.0],"b":-Infinity}]}'
    )


def test_type_that_json_cannot_write_is_refused():
    message = refusal(encode_predict, {"y": np.float16([1])}, Layout.ROW)
    assert message == "INVALID_ARGUMENT: Failed to write JSON value for tensor type: half"


EXAMPLE_ERRORS = {
    "no-examples": (
        {},
        "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
    ),
    "no-list": (
        {"examples": 1},
        "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array",
    ),
    "empty": ({"examples": []}, "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
    "list": ({"examples": [[1]]}, "Example must be JSON object but got JSON Array"),
    "context": ({"examples": [{}], "context": 1}, "Example must be JSON object but got JSON Number"),
    "null": ({"examples": [{"f": None}]}, "Feature: f has element with unexpected JSON type: Null"),
    "nested": ({"examples": [{"f": [[1]]}]}, "Feature: f has element with unexpected JSON type: Array"),
    "object": ({"examples": [{"f": {"a": 1}}]}, "Feature: f has element with unexpected JSON type: Object"),
    "mixed": ({"examples": [{"f": [1, 1.0]}]}, "Unexpected element type in feature: f expecting type: int64"),
    "mixed-bytes": ({"examples": [{"f": ["a", 1]}]}, "Unexpected element type in feature: f expecting type: bytes"),
    "name": ({"examples": [{"\udcff": 1}]}, "Feature: \udcff has a name that is not UTF-8"),
    "uint64": ({"examples": [{"f": 2**63}]}, "Feature: f has uint64_t element. Only int64_t is supported."),
    "lossy": (
        {"examples": [{"f": 1e39}]},
        "Cannot convert JSON value: 1e+39 to float without loss of precision.",
    ),
}


@pytest.mark.parametrize(("document", "message"), EXAMPLE_ERRORS.values(), ids=EXAMPLE_ERRORS)
def test_example_error_is_exactly(document, message):
    assert refusal(decode_examples, document) == f"INVALID_ARGUMENT: {message}"


def test_features_take_the_type_of_their_literals():
    document = {"examples": [{"i": [1, True], "f": 1.5, "b": ["a", {"b64": "/w=="}], "none": []}]}
    (serialized,) = decode_examples(document)
    features = example_pb2.Example.FromString(serialized).features.feature
    assert list(features["i"].int64_list.value) == [1, 1]
    assert list(features["f"].float_list.value) == [1.5]
    assert list(features["b"].bytes_list.value) == [b"a", b"\xff"]
    assert features["none"].WhichOneof("kind") is None


@pytest.mark.parametrize("depth", [65, 66, 900])
@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize("dtype", ["float", "string", "bool", "int64"])
def test_more_dimensions_than_tensors_have_are_refused(key, depth, dtype):
    body = f'{{"{key}": {"[" * depth}1{"]" * depth}}}'
    assert refusal(decode, body, x=dtype).startswith("INVALID_ARGUMENT")


def test_values_and_lists_have_a_limit():
    message = "JSON Parse error: There are more than 2097152 values, where a list or an object counts as two."
    assert message in refusal(decode, '{"inputs": [' + "[]," * 700_000 + "1]}", x="float")
    assert message in refusal(decode, '{"inputs": [' + "{}," * 700_000 + "1]}", x="float")
    assert message in refusal(decode, '{"inputs": [' + "1," * 2_097_152 + "1]}", x="float")
    image = decode('{"inputs": [' + ",".join(["[1,2,3]"] * 512**2) + "]}", x="float")["x"]
    assert (image.shape, image.sum()) == ((512**2, 3), 6 * 512**2)
    assert "is not of expected type: int64" in refusal(
        decode, '{"instances": [0.5' + ",1" * 2_000_000 + "]}", x="int64"
    )


def test_array_of_numbers_may_be_large_unless_it_came_compressed():
    body = b'{"inputs": [' + b",".join([b"[1,2,3]"] * 1024**2) + b"]}"
    signatures = {"serving_default": Signature("serving_default", "", {"x": TensorInfo("x:0", "float", None)}, {})}
    image = decode_predict(parse_predict(body), "", signatures)[0].inputs["x"]
    assert (image.shape, image.sum()) == ((1024**2, 3), 6 * 1024**2)
    with pytest.raises(ServingError, match="more than 1048576 values"):
        parse_predict(body, was_compressed=True)


def test_rows_of_as_many_dimensions_as_tensors_have_are_refused():
    row = f'{{"a": {"[" * 64}1{"]" * 64}, "b": 1}}'
    body = f'{{"instances": [{row}, {row}]}}'
    assert "64 dimensions" in refusal(decode, body, a="float", b="float")
    deepest = f'{{"inputs": {"[" * 64}1{"]" * 64}}}'
    assert decode(deepest, x="float")["x"].shape == (1,) * 64


def _nested(chance, shape):
    """Nested lists of a shape; now and then one of them has another length, or an element is no number."""
    if not shape:
        return chance.choices([chance.uniform(-9, 300), chance.randint(-5, 300), True, "7"], [9, 9, 0.003, 0.003])[0]
    size = max(0, shape[0] + chance.choices([0, 1, -1], [600, 1, 1])[0])
    return [_nested(chance, shape[1:]) for _ in range(size)]


@pytest.mark.parametrize("dtype", ["float", "double", "int32", "uint8", "uint64", "bool"])
@pytest.mark.parametrize("layout", ["instances", "inputs"])
def test_large_arrays_are_read_as_small_ones_are(layout, dtype):
    chance, signatures = (
        random.Random(dtype),
        {"serving_default": Signature("serving_default", "", {"x": TensorInfo("x:0", dtype, None)}, {})},
    )

    def decode(parse, body):
        try:
            request, _ = decode_predict(parse(body), "", signatures)
            return request.inputs["x"].dtype, request.inputs["x"].tolist()
        except ServingError as error:
            return str(error)

    quick = 0
    for _ in range(60):
        shape = chance.choices([(700,), (40, 30), (20, 8, 9)])[0]
        value = _nested(chance, shape)
        body = json.dumps({layout: value}, indent=chance.choice([None, 1])).encode()
        body = body if dtype in ("float", "double") else re.sub(rb"\.\d+", b"", body)
        quick += parse_number_array(body) is not None
        assert decode(parse_predict, body) == decode(parse_object, body)
    assert quick > 10


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": null, "x": {"instances": [%b]}}',
        b'{"inputs": {"inputs": [%b]}}',
        b'{"instances": [%b], "inputs": 1}',
        b'{"instances": [%b], "instances": 1}',
        b'{"signature_name": 1, "instances": [%b]}',
        b'{"instances": [%b]} ]',
        b'[{"instances": [%b]}]',
    ],
)
def test_only_an_array_at_the_top_is_read_as_one(body):
    assert parse_number_array(body % b",".join([b"1"] * 3000)) is None
