"""TLS on both transports, as SSLConfigs ask for it, and certificates that change while requests run."""

import contextlib
import socket
import ssl
import threading
import time

import grpc
import httpx
import numpy as np
import pytest
import trustme
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.admission.certificates import read_config
from serving.errors import ServingError
from serving.options import Options
from serving.server import Server
from serving.wire.protos import SSLConfig

pytestmark = pytest.mark.xdist_group("serving")

BODY = {"instances": [1]}
WAIT = 20.0  # seconds that nothing here should take


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def write_config(path, authority, client_verify=False):
    own = authority.issue_cert("localhost", "127.0.0.1")
    config = SSLConfig(
        server_key=own.private_key_pem.bytes().decode(),
        server_cert=own.cert_chain_pems[0].bytes().decode(),
        custom_ca=authority.cert_pem.bytes().decode(),
        client_verify=client_verify,
    )
    path.write_text(str(config))
    return str(path)


@contextlib.contextmanager
def secure_stub(server, authority, **own):
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), **own)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials, options) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def trusting(authority, own=None):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if own is not None:
        own.configure_cert(context)
    return context


def secure_rest(server, context):
    return httpx.Client(base_url=f"https://127.0.0.1:{server.rest_port}", verify=context, trust_env=False)


def shown(server, context):
    """The serial number of the certificate that a new connection sees, the protocol, the version of TLS."""
    with (
        socket.create_connection(("127.0.0.1", server.rest_port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        certificate = secure.getpeercert()
        return certificate["serialNumber"], secure.selected_alpn_protocol(), secure.version()


@pytest.fixture
def request_(predict_request):
    return predict_request(x=np.float32([1]))


@pytest.fixture(scope="module")
def config_path(tmp_path_factory, authority):
    path = tmp_path_factory.mktemp("tls") / "ssl.config"
    write_config(path, authority)
    return path


@pytest.fixture(scope="module")
def secured(serve, zoo_path, config_path):
    with serve(zoo_path, ssl_config_file=str(config_path), rest_api_ssl_config_file=str(config_path)) as server:
        yield server


def test_grpc_shows_its_certificate(secured, grpc_stubs, authority, request_, status_of):
    with secure_stub(secured, authority) as stub:
        assert list(stub.Predict(request_, timeout=WAIT).outputs["y"].float_val) == [2.5]
    with grpc_stubs(secured) as plain:
        assert status_of(plain.prediction.Predict, request_, timeout=WAIT)[0] == "UNAVAILABLE"


def test_rest_shows_its_certificate(secured, rest_client, authority):
    context = trusting(authority)
    with secure_rest(secured, context) as rest:
        answer = rest.post("/v1/models/zoo:predict", json=BODY)
        assert (answer.status_code, answer.json()) == (200, {"predictions": [2.5]})
    assert shown(secured, context)[1:] == ("http/1.1", "TLSv1.3")
    with rest_client(secured) as plain, pytest.raises(httpx.TransportError):
        plain.get("/v1/models/zoo")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_rest_takes_no_tls_before_1_2(secured, authority):
    context = trusting(authority)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shown(secured, context)


def test_rest_stays_plain_beside_grpc_with_tls(serve, rest_client, zoo_path, config_path):
    with serve(zoo_path, ssl_config_file=str(config_path)) as server, rest_client(server) as plain:
        assert plain.get("/v1/models/zoo").status_code == 200


def test_clients_must_show_their_own(serve, zoo_path, tmp_path, authority, request_, status_of):
    client = authority.issue_cert("client")
    own = {
        "private_key": client.private_key_pem.bytes(),
        "certificate_chain": client.cert_chain_pems[0].bytes(),
    }
    path = write_config(tmp_path / "ssl.config", authority, client_verify=True)
    with serve(zoo_path, ssl_config_file=path, rest_api_ssl_config_file=path) as server:
        with secure_stub(server, authority, **own) as stub:
            assert list(stub.Predict(request_, timeout=WAIT).outputs["y"].float_val) == [2.5]
        with secure_stub(server, authority) as stranger:
            assert status_of(stranger.Predict, request_, timeout=WAIT)[0] == "UNAVAILABLE"
        with secure_rest(server, trusting(authority, client)) as rest:
            assert rest.post("/v1/models/zoo:predict", json=BODY).status_code == 200
        with secure_rest(server, trusting(authority)) as stranger, pytest.raises(httpx.TransportError):
            stranger.get("/v1/models/zoo")


@pytest.mark.slow
def test_certificate_changes_while_requests_run(secured, authority, config_path, request_, caplog):
    context, failures, ended = trusting(authority), [], threading.Event()
    num_answers = [0, 0]

    def ask_grpc():
        while not ended.is_set():
            with secure_stub(secured, authority) as stub:  # a new connection for every few requests
                for _ in range(5):
                    stub.Predict(request_, timeout=WAIT)
                    num_answers[0] += 1

    def ask_rest():
        with secure_rest(secured, context) as kept:
            while not ended.is_set():
                with secure_rest(secured, context) as new:
                    for client in (kept, new):
                        assert client.post("/v1/models/zoo:predict", json=BODY).json() == {"predictions": [2.5]}
                        num_answers[1] += 1

    def guarded(ask):
        try:
            ask()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[ask]) for ask in (ask_grpc, ask_rest)]
    for thread in threads:
        thread.start()
    try:
        before = shown(secured, context)[0]
        config_path.write_text("server_key: 'broken'")
        wait_until(lambda: "so that its earlier content stays in use: " in caplog.text)
        assert shown(secured, context)[0] == before
        write_config(config_path, authority)
        wait_until(lambda: shown(secured, context)[0] != before)
        after, at_change = shown(secured, context)[0], list(num_answers)
        assert grpc_serial(secured, authority) == after
        wait_until(lambda: all(now > then + 5 for now, then in zip(num_answers, at_change, strict=True)))
    finally:
        ended.set()
        for thread in threads:
            thread.join(WAIT)
    assert failures == []


def grpc_serial(server, authority):
    context = trusting(authority)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", server.grpc_port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.getpeercert()["serialNumber"]


def wait_until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


WITHOUT_ROOM = """
import logging, os, resource, sys, time
from serving.admission.certificates import read_context
from serving.background import FileWatcher

logging.basicConfig(format="%(message)s")
watcher = FileWatcher()
file = watcher.watch(sys.argv[1], read_context)
watcher.start()
before = file.value
resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))  # no temporary file can be written
os.replace(sys.argv[2], sys.argv[1])
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
while file.value is before:
    time.sleep(0.05)
watcher.stop()
"""


@pytest.mark.slow
def test_certificate_is_followed_though_the_disk_was_full_meanwhile(tmp_path, authority, recovers):
    paths = [write_config(tmp_path / name, authority) for name in ("ssl.config", "new.config")]
    recovers(WITHOUT_ROOM, paths, "no temporary file to read the key from: File too large")


def test_clients_cannot_be_verified_without_an_authority(tmp_path):
    path = tmp_path / "ssl.config"
    path.write_text('server_key: "key" server_cert: "cert" client_verify: true')
    with pytest.raises(ServingError, match="Illegal to require client auth without providing root certificates!"):
        read_config(str(path))


@pytest.mark.parametrize("flag", ["ssl_config_file", "rest_api_ssl_config_file"])
def test_key_of_another_certificate_is_refused_at_the_start(tmp_path, authority, flag):
    one, other = authority.issue_cert("one"), authority.issue_cert("other")
    config = SSLConfig(
        server_key=one.private_key_pem.bytes().decode(), server_cert=other.cert_chain_pems[0].bytes().decode()
    )
    path = tmp_path / "ssl.config"
    path.write_text(str(config))
    with pytest.raises(ServingError, match="no key and certificates that fit together: KEY_VALUES_MISMATCH"):
        Server(Options(model_base_path="/nowhere", **{flag: str(path)}))
