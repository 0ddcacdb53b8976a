"""Servers that are not there yet, that break off, and that want to know who asks."""

import contextlib
import email.utils
import hashlib
import http.server
import json
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import trustme

from serving.client import Client, Code, Retries, ServingError, Tls
from serving.options import Options
from serving.server import Server
from serving.wire.protos import SSLConfig

pytestmark = pytest.mark.xdist_group("serving")

TOKEN = "for-the-zoo"
BOTH = ("grpc", "rest")
ONES = {"x": np.float32([1])}


def free_ports():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


class Address:
    """Where a server will be."""

    def __init__(self):
        self.grpc_port, self.rest_port = free_ports()


@contextlib.contextmanager
def started_later(address, base_path, seconds):
    options = Options(
        model_name="zoo", model_base_path=str(base_path), port=address.grpc_port, rest_api_port=address.rest_port
    )
    server = Server(options)
    timer = threading.Timer(seconds, server.start)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grpc", "rest", "async-grpc", "async-rest"])
def test_call_is_made_again_until_the_server_is_there(open_client, url_of, zoo_path, kind):
    address = Address()
    patient = Retries(attempts=50, longest_wait=0.2)
    with (
        open_client(kind, url_of(address, kind), "zoo", retries=patient, timeout=20) as client,
        started_later(address, zoo_path, 0.3),
    ):
        assert client.predict(ONES).outputs["y"].tolist() == [2.5]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grpc", "rest", "async-grpc", "async-rest"])
def test_wait_for_a_server_that_starts(open_client, url_of, zoo_path, kind):
    address = Address()
    with open_client(kind, url_of(address, kind), "zoo") as client, started_later(address, zoo_path, 0.3):
        client.wait_until_ready(timeout=20)
        assert client.predict(ONES).outputs["y"].tolist() == [2.5]


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOTH)
def test_server_that_does_not_come(open_client, url_of, kind):
    with open_client(kind, url_of(Address(), kind), retries=Retries(attempts=1000, first_wait=0.05)) as client:
        started = time.monotonic()
        with pytest.raises(ServingError) as caught:
            client.predict(ONES, timeout=0.4)
        assert caught.value.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
        with pytest.raises(ServingError, match="default is not ready: UNAVAILABLE") as caught:
            client.wait_until_ready(timeout=0.4)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("kind", BOTH)
def test_model_that_does_not_come(open_client, url_of, server, kind):
    not_there = pytest.raises(ServingError, match="nobody is not ready: NOT_FOUND: Could not find")
    with open_client(kind, url_of(server, kind), "nobody") as client, not_there:
        client.wait_until_ready(timeout=0.3)


@contextlib.contextmanager
def proxy(*replies):
    """A proxy with a status, a body and headers for each request in turn; a status of 0 breaks the connection."""
    left = list(replies)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, body, *headers = left.pop(0)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in (("Content-Length", str(len(body))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}/behind/it", left
        finally:
            listening.shutdown()
            thread.join()


NO_VERSIONS = (200, b'{"model_version_status": []}')


@pytest.mark.parametrize("kind", ["rest", "async-rest"])
def test_refused_and_broken_calls_are_made_again(open_client, kind):
    replies = [(503, b'{"error": "full"}'), (0, b""), (502, b"<html>"), NO_VERSIONS]
    with proxy(*replies) as (url, left), open_client(kind, url, retries=Retries(first_wait=0.01)) as client:
        assert client.status() == []
        assert left == []


@pytest.mark.parametrize("status", [400, 429, 500, 504])
def test_other_errors_are_not(open_client, status):
    with proxy((status, b"{}"), NO_VERSIONS) as (url, left), open_client("rest", url) as client:
        with pytest.raises(ServingError, match=f"HTTP {status}"):
            client.status()
        assert len(left) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rest", "async-rest"])
@pytest.mark.parametrize("status", [429, 503])
def test_client_waits_as_long_as_the_server_asks(open_client, kind, status):
    replies = [(status, b"{}", ("Retry-After", "1")), NO_VERSIONS]
    with proxy(*replies) as (url, left), open_client(kind, url, retries=Retries(first_wait=0.01)) as client:
        started = time.monotonic()
        assert client.status() == []
        assert 1 <= time.monotonic() - started < 5
        assert left == []


@pytest.mark.slow
def test_client_waits_until_the_date_that_the_server_names(open_client):
    end = int(time.time()) + 2
    reply = (503, b"{}", ("Retry-After", email.utils.formatdate(end, usegmt=True)))
    with proxy(reply, NO_VERSIONS) as (url, _), open_client("rest", url) as client:
        assert client.status() == []
        assert time.time() > end - 0.01


@pytest.mark.parametrize(("seconds", "timeout"), [("60", 30), ("9" * 400, None)], ids=["deadline", "for-ever"])
def test_call_that_would_wait_too_long_fails_at_once(open_client, seconds, timeout):
    reply = (503, b'{"error": "full"}', ("Retry-After", seconds))
    with proxy(reply, NO_VERSIONS) as (url, left), open_client("rest", url, timeout=timeout) as client:
        started = time.monotonic()
        with pytest.raises(ServingError, match="UNAVAILABLE: full"):
            client.status()
        assert time.monotonic() - started < 20
        assert len(left) == 1


@pytest.mark.parametrize("value", ["soon", "-1", "1 Jan 2015 99:99"])
def test_wait_that_cannot_be_read_is_none(open_client, value):
    with proxy((429, b"{}", ("Retry-After", value)), NO_VERSIONS) as (url, left), open_client("rest", url) as client:
        with pytest.raises(ServingError, match="HTTP 429"):
            client.status()
        assert len(left) == 1


def test_error_of_the_last_attempt_is_raised(open_client):
    replies = [(503, b'{"error": "full"}')] * 3
    with (
        proxy(*replies) as (url, left),
        open_client("rest", url, retries=Retries(3, first_wait=0.01)) as client,
        pytest.raises(ServingError) as caught,
    ):
        client.status()
    assert (caught.value.code, caught.value.message, left) == (Code.UNAVAILABLE, "full", [])


def test_page_of_a_proxy_is_no_answer(open_client):
    no_json = pytest.raises(ServingError, match="the reply is no JSON: b'<html>login</html>'")
    with proxy((200, b"<html>login</html>")) as (url, _), open_client("rest", url) as client, no_json:
        client.status()


def test_signature_that_another_version_changed(serve, open_client, url_of, zoo_path, save_plus, tmp_path):
    shutil.copytree(zoo_path / "00000123", tmp_path / "1")
    with (
        serve(tmp_path, file_system_poll_wait_seconds=0.05) as server,
        open_client("rest", url_of(server, "rest"), "zoo") as client,
    ):
        assert list(client.predict([1], signature="serving_default").outputs) == ["y"]
        _save_two_outputs(tmp_path / "writing")
        (tmp_path / "writing").rename(tmp_path / "2")
        client.wait_until_ready(version=2, timeout=20)
        outputs = client.predict([1], signature="serving_default").outputs
        assert (outputs["double"].tolist(), outputs["count"].tolist()) == ([2], [0])


def _save_two_outputs(directory):
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.run = tf.function(lambda x: {"double": 2 * x, "count": tf.range(tf.size(x))}, input_signature=[spec])
    tf.saved_model.save(module, str(directory), module.run)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """An authority's certificates for a server and its client, and a token, as files."""
    folder = tmp_path_factory.mktemp("secrets")
    authority = trustme.CA()
    own, client = authority.issue_cert("localhost"), authority.issue_cert("client")
    config = SSLConfig(
        server_key=own.private_key_pem.bytes().decode(),
        server_cert=own.cert_chain_pems[0].bytes().decode(),
        custom_ca=authority.cert_pem.bytes().decode(),
        client_verify=True,
    )
    (folder / "ssl.config").write_text(str(config))
    (folder / "tokens.json").write_text(
        json.dumps({"tokens": [{"name": "zoo", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}]})
    )
    authority.cert_pem.write_to_path(folder / "ca.pem")
    client.private_key_pem.write_to_path(folder / "client.key")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    return folder


@pytest.fixture(scope="module")
def guarded(serve, zoo_path, secrets):
    config = str(secrets / "ssl.config")
    options = {"ssl_config_file": config, "rest_api_ssl_config_file": config}
    with serve(zoo_path, auth_token_file=str(secrets / "tokens.json"), **options) as server:
        yield server


def secure_url(server, kind):
    return f"grpcs://localhost:{server.grpc_port}" if "grpc" in kind else f"https://localhost:{server.rest_port}"


@pytest.mark.parametrize("kind", ["grpc", "rest", "async-grpc", "async-rest"])
def test_certificates_and_token(open_client, guarded, secrets, kind):
    tls = Tls(secrets / "ca.pem", secrets / "client.pem", secrets / "client.key")
    with open_client(kind, secure_url(guarded, kind), "zoo", tls=tls, token=TOKEN) as client:
        assert client.predict(ONES).outputs["y"].tolist() == [2.5]
    with open_client(kind, secure_url(guarded, kind), "zoo", tls=tls, token="wrong") as client:
        with pytest.raises(ServingError) as caught:
            client.predict(ONES)
        assert caught.value.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize("kind", BOTH)
def test_server_that_is_not_trusted(open_client, guarded, kind):
    with open_client(kind, secure_url(guarded, kind), "zoo", retries=Retries(1)) as client:
        with pytest.raises(ServingError) as caught:
            client.predict(ONES)
        assert caught.value.code is Code.UNAVAILABLE


def test_socket_of_this_machine(serve, open_client, zoo_path, tmp_path):
    with (
        serve(zoo_path, grpc_socket_path=str(tmp_path / "socket")),
        open_client("grpc", f"unix:{tmp_path}/socket", "zoo") as client,
    ):
        assert client.predict(ONES).outputs["y"].tolist() == [2.5]


@pytest.mark.parametrize("url", ["localhost:8500", "ftp://localhost", ""])
def test_url_of_no_kind(url):
    with pytest.raises(ValueError, match="give grpc://"):
        Client(url)
