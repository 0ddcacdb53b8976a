"""TensorProto <-> arrays, against TensorFlow's own."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.wire.signatures import DTYPES
from serving.wire.tensor_proto import read_tensor as from_proto
from serving.wire.tensor_proto import write_tensor

pytestmark = pytest.mark.xdist_group("serving")


def sample(word):
    if word == "string":
        return np.array([[b"a", b"\xff\0"], [b"", b"longer than one"]], object)
    return np.array([[0, 1], [-2, 3]]).astype(DTYPES[word].numpy)


def to_proto(array):
    proto = tensor_pb2.TensorProto()
    write_tensor(array, proto)
    return proto


@pytest.mark.parametrize("word", DTYPES)
def test_message_is_read_by_tensorflow(word):
    array = sample(word)
    np.testing.assert_array_equal(tf.make_ndarray(to_proto(array)), array)


@pytest.mark.parametrize("word", DTYPES)
def test_typed_fields_come_back(word):
    back = from_proto(to_proto(sample(word)))
    assert back.dtype == DTYPES[word].numpy
    np.testing.assert_array_equal(back, sample(word))


def proto_of(dtype, shape, **fields):
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize("word", [word for word in DTYPES if word != "string"])
def test_tensor_content_is_read_as_tensorflow_reads_it(word):
    array = sample(word)
    proto = proto_of(to_proto(array).dtype, array.shape, tensor_content=array.tobytes())
    np.testing.assert_array_equal(from_proto(proto), tf.make_ndarray(proto))
    np.testing.assert_array_equal(from_proto(proto), array)


def test_content_of_strings_is_lengths_and_then_strings():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_content=b"\x01\x82\x01" + b"a" + b"b" * 130)
    proto.tensor_shape.dim.add(size=2)
    assert from_proto(proto).tolist() == [b"a", b"b" * 130]


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({}, [0, 0, 0]),
        ({"float_val": [5]}, [5, 5, 5]),
        ({"float_val": [1, 2]}, [1, 2, 2]),
        ({"float_val": [1, 2, 3, 4]}, [1, 2, 3]),
    ],
    ids=["none", "one", "too-few", "too-many"],
)
def test_number_of_values_need_not_fit(fields, values):
    assert from_proto(proto_of(types_pb2.DT_FLOAT, [3], **fields)).tolist() == values


def test_values_of_another_type_are_not_looked_at():
    proto = proto_of(types_pb2.DT_FLOAT, [1], float_val=[1.5], double_val=[2.5], int_val=[3])
    assert from_proto(proto).tolist() == [1.5]


@pytest.mark.parametrize(
    "proto",
    [
        proto_of(types_pb2.DT_INVALID, [1]),
        proto_of(types_pb2.DT_RESOURCE, [1]),
        proto_of(types_pb2.DT_FLOAT, [-1]),
        proto_of(types_pb2.DT_FLOAT, [2], tensor_content=b"abc"),
        proto_of(types_pb2.DT_STRING, [2], tensor_content=b"\x05\x05abc"),
        proto_of(types_pb2.DT_STRING, [2], tensor_content=b"\x80"),
        proto_of(types_pb2.DT_FLOAT, [2**40], float_val=[1]),
    ],
    ids=["no-type", "resource", "negative", "content", "string-content", "string-lengths", "expansion"],
)
def test_message_that_is_no_tensor_is_refused(proto):
    with pytest.raises(ValueError, match=r"tensor of type|do not make|strings"):
        from_proto(proto)
