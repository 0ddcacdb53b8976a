"""gRPC under TLS, as an SSLConfig asks for it."""

import contextlib

import grpc
import numpy as np
import pytest
import trustme
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.errors import ServingError
from serving.grpc_server import make_credentials
from serving.protos import SSLConfig

pytestmark = pytest.mark.xdist_group("serving")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def config_path(tmp_path, authority):
    def write(client_verify):
        own = authority.issue_cert("localhost")
        config = SSLConfig(
            server_key=own.private_key_pem.bytes().decode(),
            server_cert=own.cert_chain_pems[0].bytes().decode(),
            custom_ca=authority.cert_pem.bytes().decode(),
            client_verify=client_verify,
        )
        path = tmp_path / "ssl.config"
        path.write_text(str(config))
        return str(path)

    return write


@contextlib.contextmanager
def secure_stub(server, authority, **own):
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), **own)
    with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def request_(predict_request):
    return predict_request(x=np.float32([1]))


def test_server_shows_its_certificate(serve, grpc_stubs, zoo_path, config_path, authority, request_, status_of):
    with serve(zoo_path, ssl_config_file=config_path(client_verify=False)) as server:
        with secure_stub(server, authority) as stub:
            assert list(stub.Predict(request_, timeout=20).outputs["y"].float_val) == [2.5]
        with grpc_stubs(server) as plain:
            assert status_of(plain.prediction.Predict, request_, timeout=20)[0] == "UNAVAILABLE"


def test_client_must_show_its_own(serve, zoo_path, config_path, authority, request_, status_of):
    client = authority.issue_cert("client")
    own = {
        "private_key": client.private_key_pem.bytes(),
        "certificate_chain": client.cert_chain_pems[0].bytes(),
    }
    with serve(zoo_path, ssl_config_file=config_path(client_verify=True)) as server:
        with secure_stub(server, authority, **own) as stub:
            assert list(stub.Predict(request_, timeout=20).outputs["y"].float_val) == [2.5]
        with secure_stub(server, authority) as stranger:
            assert status_of(stranger.Predict, request_, timeout=20)[0] == "UNAVAILABLE"


def test_clients_cannot_be_verified_without_an_authority(tmp_path):
    path = tmp_path / "ssl.config"
    path.write_text('server_key: "key" server_cert: "cert" client_verify: true')
    with pytest.raises(ServingError, match="Illegal to require client auth without providing root certificates!"):
        make_credentials(str(path))
