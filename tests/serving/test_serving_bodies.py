"""Bodies that are no JSON, behind a real socket: images, bytes, forms, NumPy's files and messages."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from serving.errors import ServingError
from serving.rest.content import JSON, NPY, NPZ, PROTOBUF, choose_type
from serving.rest.npy import read_npz

pytestmark = pytest.mark.xdist_group("serving")

PREDICT = "/v1/models/zoo:predict"
CLASSIFY = "/v1/models/zoo:classify"
REGRESS = "/v1/models/zoo:regress"
PHOTOS = "/v1/models/photos:predict"
X = np.float32([1, 2.5])


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def post(rest, path, body, content_type, accept=None):
    headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
    return rest.post(path, content=body, headers=headers)


def refused(answer):
    """What a request was refused with, without the hint that follows."""
    assert answer.status_code == 400
    assert answer.headers["content-type"] == JSON
    return answer.json()["error"].partition("\n")[0]


class Photos(tf.Module):
    """The contract's signatures over the mean of an image, whatever its format."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="images")])
    def means(self, images):
        # A convolution that sees another rank would end this process.
        return {"mean": tf.reduce_mean(tf.nn.conv2d(images, tf.ones([1, 1, 3, 1]) / 3, 1, "SAME"), axis=(1, 2, 3))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes):
        return {"mean": _means(image_bytes)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        means = _means(tf.io.parse_example(inputs, features)["image/encoded"])
        labels = tf.tile([["dark", "light"]], [tf.size(means), 1])
        return {"classes": labels, "scores": tf.stack([255 - means, means], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="image")])
    def single(self, image):
        return {"mean": _mean(image)}


def _mean(encoded):
    return tf.reduce_mean(tf.cast(tf.io.decode_image(encoded, channels=3, expand_animations=False), tf.float32))


def _means(encoded):
    return tf.map_fn(_mean, encoded, fn_output_signature=tf.float32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, serve, rest_client):
    """A client of a model of images."""
    base_path, model = tmp_path_factory.mktemp("photos"), Photos()
    signatures = {name: getattr(model, name) for name in ("image_bytes", "classify", "single")}
    tf.saved_model.save(model, str(base_path / "1"), {"serving_default": model.means, **signatures})
    with serve(base_path, "photos") as server, rest_client(server) as client:
        yield client


PIXELS = np.full((4, 6, 3), 51, np.uint8)
BMP = b"BM" + np.int32([54 + 4, 0, 54, 40, 1, 1, 1 | 24 << 16, 0, 4, 0, 0, 0, 0]).tobytes() + bytes([51, 51, 51, 0])
GIF = (
    b"GIF89a" + np.uint16([1, 1]).tobytes() + b"\x80\0\0" + bytes([51] * 6) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
)  # fmt: skip
IMAGES = {
    "jpeg": tf.io.encode_jpeg(PIXELS, quality=100).numpy(),
    "png": tf.io.encode_png(PIXELS).numpy(),
    "gif": GIF,
    "bmp": BMP,
}


@pytest.mark.parametrize(("kind", "image"), IMAGES.items(), ids=IMAGES)
def test_image_is_one_row_of_the_contracts_signature(photos, kind, image):
    answer = post(photos, PHOTOS, image, f"image/{kind}")
    assert answer.json() == {"predictions": [51.0]}


@pytest.mark.parametrize(
    ("instances", "shape"), [([1], "[1]"), ([[[[[1]]]]], "[1,1,1,1,1]")], ids=["too-few", "too-many"]
)
def test_images_of_another_rank_never_reach_a_convolution(photos, instances, shape):
    message = refused(photos.post(PHOTOS, json={"instances": instances}))
    assert message == f"Expected input images to have 4 dimensions, but its shape is {shape}"


def test_octets_are_an_image_as_well(photos):
    assert post(photos, PHOTOS, IMAGES["png"], "application/octet-stream").json() == {"predictions": [51.0]}


def test_image_for_the_signature_of_the_address(photos):
    answer = post(photos, PHOTOS + "?signature_name=single", IMAGES["png"], "image/png; q=1")
    assert answer.json() == {"outputs": 51.0}


def test_image_to_classify_goes_to_the_signature_that_classifies(photos):
    answer = post(photos, "/v1/models/photos:classify", IMAGES["jpeg"], "image/jpeg")
    assert answer.json() == {"results": [[["dark", 204.0], ["light", 51.0]]]}
    files = [("image", ("a", IMAGES["jpeg"])), ("image", ("b", IMAGES["png"]))]
    assert len(photos.post("/v1/models/photos:classify", files=files).json()["results"]) == 2


def test_image_that_does_not_decode(photos):
    assert "Unknown image file format" in refused(post(photos, PHOTOS, b"no image", "image/jpeg"))


def test_files_of_a_form_are_rows_in_order(photos):
    white = tf.io.encode_png(np.full((2, 2, 3), 255, np.uint8)).numpy()
    files = [("image", ("a.png", IMAGES["png"])), ("image", ("b.png", white)), ("image", ("c.jpg", IMAGES["jpeg"]))]
    assert photos.post(PHOTOS, files=files).json() == {"predictions": [51.0, 255.0, 51.0]}


def test_form_names_its_signature(photos):
    answer = photos.post(PHOTOS, data={"signature_name": "single"}, files={"image": IMAGES["png"]})
    assert answer.json() == {"outputs": 51.0}


def test_fields_of_a_form_are_inputs(rest):
    fields = {"a": ["1", "2", "3"], "b": ["true", "false", "true"]}
    answer = rest.post(PREDICT, data=fields, files={"signature_name": (None, "pick")})
    assert answer.json() == {"predictions": [1, -2, 3]}


def test_fields_of_a_form_find_the_signature_that_has_them(rest):
    answer = rest.post(PREDICT, data={"a": "-7"}, files={"b": (None, "false")})
    assert answer.json() == {"predictions": [7]}


def test_fields_of_a_form_hold_a_row_each(photos):
    files = [("images", (None, str(np.full((2, 1, 3), value).tolist()))) for value in (3, 5.5)]
    assert photos.post(PHOTOS, files=files).json() == {"predictions": [3.0, 5.5]}


def test_scalar_field_of_a_form_is_answered_in_columns(rest):
    assert rest.post(PREDICT, files={"n": (None, "3")}).json() == {"outputs": 3}


def test_array_is_answered_in_columns(rest):
    assert post(rest, PREDICT, npy(X), NPY).json() == {"outputs": [2.5, 3.25]}
    assert post(rest, PREDICT + "?signature_name=identity", npy(X), NPY).json() == {"outputs": [1.0, 2.5]}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_by_name(rest, save):
    body = npz(save, a=np.int64([1, 2]), b=[True, False])
    assert post(rest, PREDICT + "?signature_name=pick", body, NPZ).json() == {"outputs": [1, -2]}


def test_arrays_both_ways_are_exact(rest):
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    answer = post(rest, PREDICT + "?signature_name=identity", npy(x), NPY, NPY)
    assert answer.headers["content-type"] == NPY
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), x, strict=True)


def test_several_outputs_are_a_file_of_several_arrays(rest):
    path = PREDICT + "?signature_name=two_outputs"
    answer = post(rest, path, npy(X), NPY, f"{NPY};q=0.5, {NPZ}")
    with np.load(io.BytesIO(answer.content)) as arrays:
        assert {name: arrays[name].tolist() for name in arrays} == {"double": [2.0, 5.0], "count": [0, 1]}
    assert refused(post(rest, path, npy(X), NPY, NPY)) == (
        "There are several outputs, but Accept: application/x-npy leaves room for one. application/x-npz has more."
    )


def test_strings_and_halves_in_files_of_arrays(rest):
    answer = post(rest, PREDICT + "?signature_name=strings", npy(np.array([b"ab", b"c"])), NPY, NPZ)
    with np.load(io.BytesIO(answer.content)) as arrays:
        assert arrays["text"].tolist() == [b"AB", b"C"]
    answer = post(rest, PREDICT + "?signature_name=halves", npy(np.float16([0.5])), NPY, NPY)
    assert np.load(io.BytesIO(answer.content)).dtype == np.float16


def test_json_may_be_answered_with_an_array(rest):
    answer = post(rest, PREDICT, b'{"instances": [1]}', JSON, NPY)
    assert np.load(io.BytesIO(answer.content)).tolist() == [2.5]


def parsed(kind, answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == PROTOBUF
    return kind.FromString(answer.content)


@pytest.mark.parametrize(
    "content_type", ["application/x-protobuf", "application/vnd.google.protobuf", "application/protobuf; proto=x"]
)
def test_message_is_answered_as_over_grpc(rest, stubs, predict_request, content_type):
    request = predict_request("two_outputs", x=X, outputs=["double"])
    answer = post(rest, PREDICT, request.SerializeToString(), content_type)
    assert parsed(predict_pb2.PredictResponse, answer) == stubs.prediction.Predict(request)


def test_model_of_a_message_may_be_left_to_the_address(rest, predict_request):
    request = predict_request(x=X)
    request.ClearField("model_spec")
    address = "/v1/models/zoo/versions/123:predict?signature_name=identity"
    answer = parsed(predict_pb2.PredictResponse, post(rest, address, request.SerializeToString(), PROTOBUF))
    assert (answer.model_spec.signature_name, answer.outputs["y"].float_val) == ("identity", [1, 2.5])


def test_message_may_be_answered_in_json(rest, predict_request):
    answer = post(rest, PREDICT, predict_request(x=X).SerializeToString(), PROTOBUF, JSON)
    assert answer.json() == {"outputs": [2.5, 3.25]}


def test_messages_of_classify_and_regress(rest, stubs, example):
    kinds = (
        (classification_pb2.ClassificationRequest, classification_pb2.ClassificationResponse),
        (
            regression_pb2.RegressionRequest,
            regression_pb2.RegressionResponse,
        ),
    )
    for name, method, (kind, response) in zip(["classify", "regress"], ["Classify", "Regress"], kinds, strict=True):
        request = kind(model_spec={"name": "zoo", "signature_name": name})
        request.input.example_list.examples.append(example(x=0.25))
        answer = post(rest, f"/v1/models/zoo:{name}", request.SerializeToString(), PROTOBUF)
        assert parsed(response, answer) == getattr(stubs.prediction, method)(request)


def test_octets_that_are_json_are_read_as_tensorflow_serving_reads_them(rest):
    answer = post(rest, PREDICT, b' {"instances": [1]}', "application/octet-stream")
    assert answer.json() == {"predictions": [2.5]}


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", "application/xml", "?", ""],
)
def test_every_other_content_type_is_json(rest, content_type):
    assert post(rest, PREDICT, b'{"instances": [1]}', content_type).json() == {"predictions": [2.5]}
    error = "JSON Parse error: Invalid value. at offset: 0"
    assert post(rest, PREDICT, b"x", content_type).json() == {"error": error}


FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
OTHER = predict_pb2.PredictRequest(model_spec={"name": "other"}).SerializeToString()
OTHER_VERSION = predict_pb2.PredictRequest(model_spec={"name": "zoo", "version": {"value": 7}}).SerializeToString()
OTHER_SIGNATURE = predict_pb2.PredictRequest(model_spec={"name": "zoo", "signature_name": "s"}).SerializeToString()
NO_FIELDS = "Expected a field for each input in multipart/form-data, but there is none."
NPY_ERROR = "Expected a .npy file of numbers, truth values or strings: "
ERRORS = {
    "message": (PREDICT, PROTOBUF, b"\xff", "Expected a serialized tensorflow.serving.PredictRequest"),
    "examples": (CLASSIFY, PROTOBUF, b"\xff", "Expected a serialized tensorflow.serving.ClassificationRequest"),
    "model": (PREDICT, PROTOBUF, OTHER, "The address names the model zoo, and the message other."),
    "version": (
        "/v1/models/zoo/versions/123:predict",
        PROTOBUF,
        OTHER_VERSION,
        "The address names the version 123, and the message 7.",
    ),
    "signature": (
        PREDICT + "?signature_name=identity",
        PROTOBUF,
        OTHER_SIGNATURE,
        "The address names the signature identity, and the message s.",
    ),
    "npy": (PREDICT, NPY, b"\x93NUMPY", NPY_ERROR + "its header makes no sense"),
    "npy-cut": (PREDICT, NPY, npy(X)[:-1], NPY_ERROR + "7 bytes do not make shape (2,) of float32"),
    "npy-objects": (PREDICT, NPY, npy(np.array([b""], object)), NPY_ERROR + "there is no tensor of object"),
    "npy-type": (PREDICT, NPY, npy(np.float64([1])), "Expects arg[0] to be float but double is provided"),
    "npy-for-several": (
        PREDICT + "?signature_name=pick",
        NPY,
        npy(X),
        "One array will not do; a .npz file names several. "
        'Inputs of signature "pick": a: int64 [?], b: bool [?].',
    ),
    "npy-to-classify": (
        CLASSIFY,
        NPY,
        npy(X),
        "Expected examples: application/json, application/x-protobuf, an image, or images in multipart/form-data.",
    ),
    "unknown-signature": (
        PREDICT + "?signature_name=s",
        NPY,
        npy(X),
        'Serving signature name: "s" not found in signature def',
    ),
    "npz": (PREDICT, NPZ, npy(X), "Expected a .npz file: File is not a zip file"),
    "npz-name": (
        PREDICT,
        NPZ,
        npz(y=X, z=X),
        "input size does not match signature: 2!=1 len({y,z}) != len({x}). Sent extra: {y,z}. "
        "Missing but required: {x}.",
    ),
    "npz-unread": (
        PREDICT,
        NPZ,
        npz(x=X, y=np.array([b"no tensor"], object)),
        "input size does not match signature: 2!=1 len({x,y}) != len({x}). Sent extra: {y}. Missing but required: {}.",
    ),
    "no-boundary": (PREDICT, "multipart/form-data", PART, "Content-Type multipart/form-data names no boundary."),
    "no-form": (PREDICT, FORM, b"{}", "Expected a body of multipart/form-data: "),
    "form-cut": (PREDICT, FORM, PART, "Expected a body of multipart/form-data: it ends too early"),
    "no-fields": (PREDICT, FORM, b"--b--\r\n", NO_FIELDS),
    "no-name": (
        PREDICT,
        FORM,
        b"--b\r\nX: y\r\n\r\n1\r\n--b--",
        'Expected a body of multipart/form-data: Field name not found in Content-Disposition: "None"',
    ),
    "field-is-no-json": (
        PREDICT,
        FORM,
        PART.replace(b"1\r\n", b"z\r\n") + b"--b--",
        "The field x is no value in JSON, such as 0.5 or [1, 2].",
    ),
    "field-is-half-a-character": (
        PREDICT,
        FORM,
        PART.replace(b"1\r\n", b'"\\ud800"\r\n') + b"--b--",
        "The field x is no value in JSON, such as 0.5 or [1, 2].",
    ),
    "field-is-large": (
        PREDICT,
        FORM,
        PART.replace(b"1\r\n", b"9" * 400 + b"\r\n") + b"--b--",
        f"Cannot convert JSON value: {'9' * 400} to float without loss of precision.",
    ),
    "field-type": (
        PREDICT + "?signature_name=pick",
        FORM,
        PART.replace(b'"x"', b'"a"') + PART + b"--b--",
        'The field x is no input. Inputs of signature "pick": a: int64 [?], b: bool [?].',
    ),
    "image-for-numbers": (
        PREDICT + "?signature_name=identity",
        "image/png",
        b"",
        'Images and other bytes need one input of strings. Inputs of signature "identity": x: float [?].',
    ),
    "image-for-several": (
        PREDICT,
        "image/png",
        b"",
        "Several signatures are for one value of bytes: add ?signature_name= to say which of only_text, strings.",
    ),
    "query": (PREDICT + "?" + "a=1&" * 101, NPY, npy(X), "The query of the address has more than 100 parameters."),
}  # fmt: skip


@pytest.mark.parametrize(("path", "content_type", "body", "message"), ERRORS.values(), ids=ERRORS)
def test_error_begins_exactly(rest, path, content_type, body, message):
    text = refused(post(rest, path, body, content_type))
    assert text == message or (message.endswith(": ") and text.startswith(message))


def test_entries_of_an_archive_are_counted_before_each_has_an_object():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(10_000):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    body = file.getvalue()
    tracemalloc.start()
    with pytest.raises(ServingError, match="more than 1000 arrays"):
        read_npz(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(body) / 2


def test_archive_inflates_to_no_more_than_a_body_may_have(serve, rest_client, zoo_path):
    with serve(zoo_path, rest_api_max_body_bytes=10_000) as server, rest_client(server) as client:
        zeros = np.zeros(2400, np.float32)
        answer = post(client, PREDICT, npz(np.savez_compressed, x=zeros), NPZ)
        assert len(answer.json()["outputs"]) == len(zeros)
        body = npz(np.savez_compressed, x=np.zeros(2500, np.float32))
        assert refused(post(client, PREDICT, body, NPZ)) == "Expected a .npz file: it inflates to more than 10000 bytes"


def test_image_without_a_signature_for_it_is_told_what_there_is(serve, rest_client, save_plus, tmp_path):
    save_plus(tmp_path / "1", 1)
    with serve(tmp_path, "plus") as server, rest_client(server) as client:
        message = refused(post(client, "/v1/models/plus:predict", IMAGES["png"], "image/png"))
        assert message == (
            'No signature is for one value of bytes. Inputs of signature "serving_default": x: float [?].'
        )
        files = {"x": IMAGES["png"], "z": b""}
        message = refused(client.post("/v1/models/plus:predict", files=files))
        assert message.startswith("No signature is for the fields x, z. Inputs of")
        message = refused(post(client, "/v1/models/plus:classify", IMAGES["png"], "image/png"))
        assert message.startswith("No signature is for classification. Inputs of")


LIKED = {
    "": JSON,
    "*/*": JSON,
    "application/json, text/plain, */*": JSON,
    "text/html,application/xhtml+xml,*/*;q=0.8": JSON,
    "text/html": JSON,
    "application/x-npy": NPY,
    "application/x-npy, */*": NPY,
    "application/x-npy;q=0.5, application/json": JSON,
    "application/x-npy;q=0, */*;q=0.1": JSON,
    "application/vnd.google.protobuf": PROTOBUF,
    "application/json;q=0, */*": NPY,
    "application/*;q=0.2, application/x-npz;q=x": JSON,
}


@pytest.mark.parametrize(("accept", "chosen"), LIKED.items(), ids=LIKED)
def test_answer_has_the_type_that_its_client_likes_best(accept, chosen):
    assert choose_type(accept, (JSON, NPY, NPZ, PROTOBUF)) == chosen
