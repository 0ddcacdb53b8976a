"""What training exports, serving answers with: the contract between the two, held from both sides."""

import base64
import json
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_service_pb2_grpc

from keras_prelu.networks.fully_convolutional import fully_convolutional
from serving.options import Options
from serving.server import Server
from tests.two_classes import SIZES, photo, trained_run
from training.classifier import load_network
from training.data.preprocessing import decode_image
from training.export.export import ExportOptions, export

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("contract")]  # they share a server

TOLERANCE = 1e-5
CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [photo(rng, index % 2 == 0, size) for index, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network trained on a folder of JPEGs, as a user would."""
    return trained_run(tmp_path_factory, *CLASSES)


@pytest.fixture(scope="module")
def pixels(photos):
    return np.stack([decode_image(image, (24, 24, 3)) for image in photos])


@pytest.fixture(scope="module")
def expected(run, pixels):
    return tf.nn.softmax(load_network(run)(pixels)).numpy()


@pytest.fixture(scope="module")
def dense_expected(run, photos):
    """The mean scores over all windows of each photo, whole, its shorter side scaled to a window's."""
    network = fully_convolutional(load_network(run))
    wholes = []
    for encoded in photos:
        image = tf.io.decode_image(encoded)
        size = np.round(np.array(image.shape[:2]) * 24 / min(image.shape[:2])).astype(int)
        wholes.append(tf.image.resize(image, size, antialias=True)[None])
    return np.concatenate([np.mean(tf.nn.softmax(network(whole)), axis=(1, 2)) for whole in wholes])


@pytest.fixture(scope="module")
def server(run):
    export(run, ExportOptions(dense=True))
    options = Options(model_name="photos", model_base_path=str(run.exports))
    with Server(options, pick_free_ports=True) as server:
        yield server


@pytest.fixture
def post(server):
    def send(action, document):
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/photos:{action}"
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(document).encode())) as response:
            return json.load(response)

    return send


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def check(scores, classes, expected):
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(classes, expected.argmax(axis=1))


def check_labelled(answers, expected):
    for answer, row in zip(answers, expected, strict=True):
        assert [label for label, _ in answer] == [CLASSES[index] for index in np.argsort(-row)]
        np.testing.assert_allclose([score for _, score in answer], -np.sort(-row), atol=TOLERANCE)


def encode(image):
    return {"b64": base64.b64encode(image).decode()}


def test_pixels_over_rest(post, pixels, expected):
    predictions = post("predict", {"instances": pixels.tolist()})["predictions"]
    check([each["scores"] for each in predictions], [each["classes"] for each in predictions], expected)


def test_encoded_images_over_rest(post, photos, expected):
    body = {"signature_name": "image_bytes", "inputs": [encode(image) for image in photos]}
    outputs = post("predict", body)["outputs"]
    check(outputs["scores"], outputs["classes"], expected)


def test_classify_over_rest(post, photos, expected):
    examples = [{"image/encoded": encode(image)} for image in photos]
    check_labelled(post("classify", {"signature_name": "classify", "examples": examples})["results"], expected)


def test_photos_of_any_size_over_rest(post, photos, dense_expected):
    body = {"signature_name": "dense_bytes", "inputs": [encode(photo) for photo in photos]}
    outputs = post("predict", body)["outputs"]
    check(outputs["scores"], outputs["classes"], dense_expected)


@pytest.mark.parametrize("signature", ["serving_default", "image_bytes"])
def test_predict_over_grpc(stub, photos, pixels, expected, signature):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "photos"
    request.model_spec.signature_name = signature
    name, values = ("images", pixels) if signature == "serving_default" else ("image_bytes", photos)
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    response = stub.Predict(request, timeout=30)
    check(tf.make_ndarray(response.outputs["scores"]), tf.make_ndarray(response.outputs["classes"]), expected)
    assert response.model_spec.version.value == 1


def test_pixels_of_any_size_over_grpc(stub, run, pixels):
    larger = tf.image.resize(pixels, (40, 31)).numpy()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "photos"
    request.model_spec.signature_name = "dense"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(larger))
    response = stub.Predict(request, timeout=30)
    expected = np.mean(tf.nn.softmax(fully_convolutional(load_network(run))(larger)), axis=(1, 2))
    check(tf.make_ndarray(response.outputs["scores"]), tf.make_ndarray(response.outputs["classes"]), expected)


def test_classify_over_grpc(stub, photos, expected):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "photos"
    request.model_spec.signature_name = "classify"
    for image in photos:
        request.input.example_list.examples.add().features.feature["image/encoded"].bytes_list.value.append(image)
    result = stub.Classify(request, timeout=30).result
    check_labelled([[(each.label, each.score) for each in row.classes] for row in result.classifications], expected)
