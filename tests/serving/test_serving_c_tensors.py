"""Arrays that become the runtime's tensors, and tensors that become arrays."""

import gc

import ml_dtypes
import numpy as np
import pytest

from serving.errors import ServingError
from serving.models import c_api
from serving.models.c_api import Tensor, from_array, to_array
from serving.wire.signatures import DTYPES

pytestmark = pytest.mark.xdist_group("serving")

NUMBERS = [word for word in DTYPES if word != "string"]


@pytest.mark.parametrize("word", NUMBERS)
@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0, 4)], ids=["scalar", "vector", "matrix", "empty"])
def test_numbers_come_back(word, shape):
    array = (np.arange(np.prod(shape, dtype=int)) % 2 + 1).reshape(shape).astype(DTYPES[word].numpy)
    given = to_array(from_array(array))
    assert (given.dtype, given.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(given, array)


@pytest.mark.parametrize("kind", ["O", "S", "U"])
def test_strings_come_back_as_bytes(kind):
    long = "é" * 100_000  # short strings lie in the tensor itself, longer ones beside it
    words = np.array([["a", long], ["0123456789012345678901", "b"]])
    array = words if kind == "U" else np.char.encode(words, "utf-8").astype(kind)
    given = to_array(from_array(array))
    assert given.tolist() == [[b"a", long.encode()], [b"0123456789012345678901", b"b"]]


def test_strings_may_hold_zeros_or_nothing():
    array = np.array([b"a\0", b"", b"\xff"], object)
    assert to_array(from_array(array)).tolist() == array.tolist()
    assert to_array(from_array(array[:0])).shape == (0,)


def test_tensor_holds_what_the_array_held_then():
    array = np.float32([1, 2])
    tensor = from_array(array)
    array[:] = 0
    assert to_array(tensor).tolist() == [1, 2]


def test_array_keeps_its_tensor():
    array = to_array(from_array(np.arange(1000)))
    gc.collect()
    from_array(np.zeros(1000, int))  # would get the memory of a tensor that had been deleted
    np.testing.assert_array_equal(array, np.arange(1000))


def test_type_that_the_runtime_lacks():
    with pytest.raises(ServingError, match=r"^INVALID_ARGUMENT: There is no tensor of type float8_e3m4$"):
        from_array(np.zeros(1, ml_dtypes.float8_e3m4))


def test_type_that_no_array_has():
    quantized = 11  # DT_QINT8
    with pytest.raises(ServingError, match=r"^UNIMPLEMENTED: A tensor of type 11 can't be given back$"):
        to_array(Tensor(c_api.TF_AllocateTensor(quantized, None, 0, 1)))
