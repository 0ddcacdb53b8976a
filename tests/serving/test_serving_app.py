"""The REST API as an ASGI application, under uvicorn as it comes, alone and mounted below a prefix."""

import asyncio
import contextlib
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import uvicorn

from serving.api.service import Service
from serving.options import Options
from serving.rest.app import create_app
from tests.pages import blocks_of

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 30.0  # seconds that nothing here should take
ROOT = pathlib.Path(__file__).parents[2]
PREDICT = "/v1/models/m:predict"


@contextlib.contextmanager
def served(app):
    """The address of an application under uvicorn, with its own HTTP implementation and options."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, args=[[bound]])
        thread.start()
        try:
            end = time.monotonic() + WAIT
            while not server.started:
                assert time.monotonic() < end
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def options(zoo_path):
    return Options(model_name="m", model_base_path=str(zoo_path), rest_api_num_threads=1)


@pytest.fixture(scope="module")
def app(options):
    with Service(options) as service, create_app(service, options) as app:
        yield app


@pytest.fixture(scope="module")
def client(app):
    with served(app) as url, httpx.Client(base_url=url, timeout=WAIT, trust_env=False) as client:
        yield client


def test_api_is_answered_under_uvicorn(client):
    answer = client.post(PREDICT, json={"instances": [1, 3]})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [2.5, 3.5]})
    assert answer.headers["x-model-version"] == "123"
    assert client.get("/v1/models/m").json()["model_version_status"][0]["state"] == "AVAILABLE"
    assert "tensorflow_serving_request_count" in client.get("/metrics").text


def test_server_that_runs_nothing_else_closes_the_application_at_its_end(zoo_path, tmp_path):
    log = tmp_path / "access.log"
    options = Options(model_name="m", model_base_path=str(zoo_path), access_log=str(log))
    with Service(options) as service:
        app = create_app(service, options)
        with served(app) as url:
            assert httpx.get(url + "/readyz", trust_env=False).status_code == 200
        assert '"/readyz"' in log.read_text()  # written to its end
        with pytest.raises(RuntimeError):
            app.threads.submit(print)
        app.close()  # once more does no harm


def test_probes_take_head_and_wait_for_no_thread(app, client, busy):
    with busy(app.threads):
        answer = client.head("/readyz")
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) == len(client.get("/readyz").content)
        assert client.get("/healthz").json() == {"alive": True}


def test_body_without_a_length_is_bounded(zoo_path):
    options = Options(model_name="m", model_base_path=str(zoo_path), rest_api_max_body_bytes=1000)
    with Service(options) as service, create_app(service, options) as app, served(app) as url:
        for content in (b" " * 1001, (b" " * 100 for _ in range(11))):
            answer = httpx.post(url + PREDICT, content=content, trust_env=False)
            assert (answer.status_code, answer.json()["error"]) == (413, "The body is larger than 1000 bytes.")


def test_request_whose_client_went_away_before_a_thread_was_free_is_not_run(app, busy):
    arrived, gone = threading.Event(), threading.Event()

    async def observed(scope, receive, send):
        assert scope["type"] == "http"  # not the lifespan, whose end would close the application

        async def tell():
            message = await receive()
            noticed = gone if message["type"] == "http.disconnect" else arrived
            asyncio.get_running_loop().call_soon(noticed.set)  # once the application has acted on the message
            return message

        await app(scope, tell if scope["method"] == "POST" else receive, send)

    with served(observed) as url, httpx.Client(base_url=url, timeout=WAIT, trust_env=False) as client:
        before = num_requests(client, "OK"), num_requests(client, "CANCELLED")
        with busy(app.threads):
            with socket.create_connection((client.base_url.host, client.base_url.port)) as leaving:
                body = b'{"instances": [1]}'
                leaving.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\n" % PREDICT.encode())
                leaving.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
                assert arrived.wait(WAIT)
            assert gone.wait(WAIT)
        client.get("/v1/models")  # takes the thread afterwards
        assert (num_requests(client, "OK"), num_requests(client, "CANCELLED")) == before


def num_requests(client, status):
    pattern = rf'^tensorflow_serving_request_count_total{{.*status="{status}".*}} (\S+)$'
    return sum(map(float, re.findall(pattern, client.get("/metrics").text, re.MULTILINE)))


def test_time_limit_covers_decoding(zoo_path):
    options = Options(model_name="m", model_base_path=str(zoo_path), rest_api_timeout_in_ms=1)
    body = b'{"instances": [' + b'"a",' * 200_000 + b'"a"], "signature_name": "strings"}'
    with Service(options) as service, create_app(service, options) as app, served(app) as url:
        answer = httpx.post(url + PREDICT, content=body, timeout=WAIT, trust_env=False)
    assert (answer.status_code, answer.json()) == (504, {"error": "Timed out waiting for notification"})


def test_names_are_decoded_once(client):
    answer = client.get("/v1/models/a%252Fb%2Fc/metadata")
    assert answer.json() == {"error": "Servable not found for request: Latest(a%2Fb/c)"}


@pytest.mark.parametrize("raw_path", [b"/models/v1/models/a%2Fb:predict", None], ids=["raw", "decoded"])
def test_path_below_a_prefix_is_known_with_and_without_its_raw_form(app, raw_path):
    scope = {
        "type": "http",
        "method": "POST",
        "root_path": "/models",
        "path": "/models/v1/models/a/b:predict" if raw_path else "/models/v1/models/a b:predict",
        "headers": [],
    }
    if raw_path:
        scope["raw_path"] = raw_path
    sent = []

    async def receive():
        return {"type": "http.request", "body": b'{"instances": [1]}'}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    name = b"a/b" if raw_path else b"a b"
    assert sent[1]["body"] == b'{"error":"Servable not found for request: Latest(%b)"}' % name


def asked(url):
    with httpx.Client(base_url=url, timeout=WAIT, trust_env=False) as client:
        return (
            client.get("/hello").json(),
            client.post("/models" + PREDICT, json={"instances": [1]}).json(),
            client.post("/models" + PREDICT, content=b"{}").json()["error"].rpartition(": ")[2],
            client.get("/models/readyz").status_code,
            client.get("/models/elsewhere").status_code,
            client.get("/v1/models/m").status_code,
        )


MOUNTED = ({"hello": "world"}, {"predictions": [2.5]}, "GET /models/v1/models/m/example", 200, 404, 404)


def test_page_of_the_documentation_serves_a_model(zoo_path):
    (code,) = [text for language, text in blocks_of("docs/serving_asgi.md") if language == "python"]
    names = {}
    exec(code.replace("/srv/models/m", str(zoo_path)), names)
    with served(names["app"]) as url:
        assert asked(url) == MOUNTED


@pytest.mark.slow
def test_example_serves_a_model(zoo_path):
    command = [sys.executable, "examples/fastapi_app.py", str(zoo_path), "0"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        try:
            log = []
            for line in process.stderr:  # until it ends, or listens at a port of the system's choice
                log.append(line)
                if "Uvicorn running on" in line:
                    break
            (url,) = re.findall(r"Uvicorn running on (http://\S+)", "".join(log))
            assert asked(url) == MOUNTED
        finally:
            process.terminate()
    assert process.returncode in (0, -15)
