"""Bodies made up by hypothesis: each is read, or refused as the client's fault, and nothing else ever happens."""

import io
import zlib

import numpy as np
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from tensorflow_serving.apis import predict_pb2

from serving.call import Call
from serving.errors import Code, ServingError
from serving.models.inference import CLASSIFY
from serving.rest.bodies import decode_examples, decode_predict, parse_body
from serving.rest.content import choose_type, media_type, weights
from serving.rest.npy import read_npy, read_npz, write_npy, write_npz
from serving.rest.routes import parse_route
from serving.rest.uploads import read_form
from serving.wire.signatures import Signature, TensorInfo

quickly = settings(
    max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
SIGNATURES = {
    "serving_default": Signature("serving_default", "", {"x": TensorInfo("x:0", "float", (None, 2))}, {}),
    "image_bytes": Signature("image_bytes", "", {"s": TensorInfo("s:0", "string", (None,))}, {}),
    "several": Signature(
        "several", "", {"a": TensorInfo("a:0", "int64", ()), "b": TensorInfo("b:0", "bool", None)}, {}
    ),
    "classify": Signature(
        "classify",
        "",
        {"inputs": TensorInfo("i:0", "string", (None,))},
        {"scores": TensorInfo("s:0", "float", (None, None))},
    ),
}
NPY = write_npy(np.arange(6.0).reshape(2, 3))
NPZ = write_npz({"x": np.float32([[1, 2]]), "y": np.array([b"a", b"bc"], object)})
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n[1, 2]\r\n'
    b'--b\r\nContent-Disposition: form-data; name="s"; filename="f"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n'
    b"--b--\r\n"
)  # fmt: skip
MESSAGE = predict_pb2.PredictRequest(model_spec={"name": "m", "version_label": "l"}, output_filter=["y"])
MESSAGE.inputs["x"].dtype = 1
MESSAGE.inputs["x"].float_val.extend([1, 2])
WHOLE = {
    "application/json": b'{"signature_name": "several", "instances": [{"a": 1, "b": true}, {"a": -2, "b": [false]}]}',
    "application/octet-stream": b'{"inputs": {"x": [[0.5, NaN]]}}',
    "application/x-npy": NPY,
    "application/x-npz": NPZ,
    "application/x-protobuf": MESSAGE.SerializeToString(),
    "multipart/form-data; boundary=b": FORM,
    "image/png": b"\x89PNG\r\n",
}


@st.composite
def damaged(draw, whole):
    """A text with a few pieces of it replaced by others."""
    text = whole
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + draw(st.binary(max_size=12)) + text[end:]
    return text


def parse(action, body, query, headers):
    route = parse_route("POST", f"/v1/models/m:{action}", query)
    return parse_body(route, Call(header=lambda name: headers.get(name, "")), body, 2**29)


def outcome(function, *arguments):
    """What a function gives, or None where it refuses its input as it should."""
    try:
        return function(*arguments)
    except ServingError as error:
        if error.code not in (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED):
            raise
        return None


@pytest.mark.slow
@pytest.mark.parametrize("content_type", WHOLE)
@quickly
@given(data=st.data())
def test_damaged_predict_body_is_read_or_refused(content_type, data):
    body = data.draw(damaged(WHOLE[content_type]) | st.binary(max_size=60))
    query = data.draw(
        st.sampled_from(["", "signature_name=several", "signature_name=image_bytes&x"]) | st.text(max_size=9)
    )
    parsed = outcome(parse, "predict", body, query, {"content-type": content_type})
    if parsed is not None and (decoded := outcome(decode_predict, parsed, SIGNATURES)) is not None:
        assert all(isinstance(array, np.ndarray) for array in decoded[0].inputs.values())


@pytest.mark.parametrize("content_type", WHOLE)
@quickly
@given(data=st.data())
def test_damaged_examples_are_read_or_refused(content_type, data):
    body = data.draw(
        damaged(b'{"examples": [{"x": 1.5, "y": ["a", "b"], "z": {"b64": "YQ=="}}]}' + WHOLE[content_type])
    )
    parsed = outcome(parse, "classify", body, "", {"content-type": content_type})
    if parsed is not None and (decoded := outcome(decode_examples, parsed, SIGNATURES, CLASSIFY)) is not None:
        assert all(isinstance(each, bytes) for each in decoded[1])


@quickly
@given(damaged(NPY) | st.binary(max_size=100).map(lambda tail: NPY[:10] + tail))
def test_damaged_array_takes_no_more_memory_than_it_has_bytes(body):
    array = outcome(read_npy, body)
    assert array is None or array.dtype.kind in "OSU" or array.nbytes <= len(body)


@quickly
@given(damaged(NPZ))
def test_damaged_arrays_are_read_or_refused(body):
    outcome(read_npz, body)


@quickly
@given(damaged(FORM), st.sampled_from(["multipart/form-data; boundary=b", "multipart/form-data; boundary="]))
def test_damaged_form_is_read_or_refused(body, content_type):
    read = outcome(read_form, body, content_type)
    assert read is None or sum(len(field.content) for field in read[1]) <= len(body)


TYPES = arrays_of.boolean_dtypes() | arrays_of.integer_dtypes() | arrays_of.floating_dtypes(sizes=(16, 32, 64))


@quickly
@given(
    arrays_of.arrays(
        TYPES | arrays_of.complex_number_dtypes(sizes=(64, 128)), arrays_of.array_shapes(min_dims=0, min_side=0)
    )
)
def test_every_array_is_read_as_numpy_wrote_it(array):
    file = io.BytesIO()
    np.save(file, array)
    read = read_npy(file.getvalue())
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(np.load(io.BytesIO(write_npy(read))), array)


@pytest.mark.parametrize(("encoding", "compress"), [("zstd", zstd.compress), ("deflate", zlib.compress)])
@quickly
@given(data=st.data())
def test_damaged_compression_is_read_or_refused(encoding, compress, data):
    body = data.draw(damaged(compress(b'{"inputs": [[1, 2]]}')))
    outcome(parse, "predict", body, "", {"content-encoding": encoding})


@quickly
@given(st.binary(max_size=60).map(lambda header: header.decode("latin-1")) | st.text("abgzip/*;q=,01. \t", max_size=40))
def test_every_header_names_something(header):
    assert isinstance(media_type(header), str)
    assert choose_type(header, ("a/a", "b/b")) in ("a/a", "b/b")
    assert all(0 <= weight <= 1 for weight in weights(header).values())
