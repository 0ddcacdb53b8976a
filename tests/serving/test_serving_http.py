"""HTTP behind a real socket: what clients may do, and how the server treats those that do otherwise."""

import asyncio
import contextlib
import errno
import json
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import ServingError
from serving.rest.asgi_server import AsgiServer
from serving.rest.connection import Limits

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 10.0  # seconds that nothing here should take
LIMITS = Limits(head_size=2000, all_bodies_size=15_000, discarded_size=100)
LARGEST_BODY = 10_000


REFUSALS = []  # (address, method, path, status, reason, size) of what the server refused itself


def note_refused(scope, status, reason, size):
    REFUSALS.append((scope["client"][0], scope["method"], scope["path"], status, reason, size))
    return [(b"x-seen", b"yes")]


@dataclass
class Request:
    scope: dict
    body: bytes = b""
    cancelled: bool = False

    def header(self, name):
        return dict(self.scope["headers"]).get(name, b"")

    @property
    def path(self):
        return self.scope["raw_path"].decode()


async def send_answer(send, status, body):
    headers = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive, most):
    """The body; None where it is larger, or its client gone."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        more = message["more_body"]
        if len(body) > most:
            return None
    return body


class Echo:
    """Answers with what it was asked, once its gate is open."""

    def __init__(self, threads):
        self.executor = threads
        self.requests = []
        self.gate = threading.Event()
        self.gate.set()

    async def __call__(self, scope, receive, send):
        request = Request(scope)
        if request.header(b"x-stranger"):
            return await send_answer(send, 401, b"no")
        if int(request.header(b"content-length") or b"0") > LARGEST_BODY:
            return await send_answer(send, 413, b"too large")
        request.body = await read_body(receive, LARGEST_BODY)
        if request.body is None:
            return await send_answer(send, 413, b"too large")
        self.requests.append(request)
        watching = asyncio.create_task(self.watch(request, receive))
        opened = await asyncio.get_running_loop().run_in_executor(self.executor, self.gate.wait, WAIT)
        watching.cancel()
        assert opened
        return await send_answer(send, 200, self.answer(request))

    async def watch(self, request, receive):
        assert (await receive())["type"] == "http.disconnect"
        request.cancelled = True

    def answer(self, request):
        size = int(request.header(b"x-answer-size") or b"0")
        text = f"{request.scope['method']} {request.path} {len(request.body)} ".encode()
        return text + request.body[:20] + b"." * size


class Client:
    """Sends bytes and reads answers."""

    def __init__(self, port, context=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)  # so that much stays with the server
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.reader = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text.encode("latin-1") if isinstance(text, str) else text)

    def read(self, has_body=True):
        """The status, the headers and the body of an answer."""
        line = self.reader.readline()
        if not line:
            return None
        lines = iter(self.reader.readline, b"\r\n")
        split = (each.decode().strip().partition(": ") for each in lines)
        headers = {name.lower(): value for name, _, value in split}
        body = self.reader.read(int(headers.get("content-length", 0))) if has_body else b""
        return int(line.split()[1]), headers, body

    def ask(self, text):
        self.send(text)
        return self.read()

    def end(self):
        """Sends no more. Raises ConnectionResetError where the server has reset the connection before."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                raise ConnectionResetError from error
            raise

    def is_closed(self):
        return self.reader.read(1) == b""

    def close(self):
        self.reader.close()
        self.socket.close()


@contextlib.contextmanager
def running(limits=LIMITS, grace=WAIT, kind=Echo, refused=note_refused, **options):
    with ThreadPoolExecutor(8) as threads, socket.create_server(("127.0.0.1", 0)) as bound:
        application = kind(threads)
        server = AsgiServer(application, bound, grace, limits, refused=refused, **options)
        port = bound.getsockname()[1]
        server.start()
        try:
            yield server, application, port
        finally:
            application.gate.set()
            server.stop()


@pytest.fixture(scope="module")
def contexts():
    """For TLS: the server's, and a client's."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.fixture(scope="module")
def http():
    with running() as (_, application, port):
        yield application, port


@pytest.fixture
def application(http):
    http[0].requests.clear()
    return http[0]


@pytest.fixture
def connect(http):
    """Connects clients to the server, or to another port."""
    with contextlib.ExitStack() as stack:

        def make(port=http[1], context=None):
            client = Client(port, context)
            stack.callback(client.close)
            return client

        yield make


def get(path="/", headers=""):
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"


def post(body, headers=""):
    return f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}"


UPGRADE = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
ANSWERED = {
    "get": (get("/a"), b"GET /a 0 "),
    "query": (get("/a?b=/c"), b"GET /a 0 "),
    "whole-address": (get("http://host:80/a?b"), b"GET /a 0 "),
    "encoded": (get("/%C3%BC"), b"GET /%C3%BC 0 "),
    "post": (post("abc"), b"POST / 3 abc"),
    "chunked": (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: u\r\n\r\n",
        b"POST / 3 abc",
    ),
    "trailers": (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-Answer-Size: 1\r\n\r\n"
        "3\r\nabc\r\n0\r\nX-Answer-Size: 1000\r\nX-Stranger: 1\r\n\r\n",
        b"POST / 3 abc.",
    ),
    "blank-line-first": ("\r\n" + get("/a"), b"GET /a 0 "),
    "upgrade": (get("/a", UPGRADE), b"GET /a 0 "),
    "upgrade-with-body": (post("abc", UPGRADE), b"POST / 3 abc"),
}  # fmt: skip


@pytest.mark.parametrize("address", ["/a?b=/c%20d", "http://host:80/a?b=/c%20d"])
def test_query_is_kept_as_it_was_sent(connect, application, address):
    connect().ask(get(address))
    assert [request.scope["query_string"] for request in application.requests] == [b"b=/c%20d"]


@pytest.mark.parametrize(("text", "answer"), ANSWERED.values(), ids=ANSWERED)
@pytest.mark.usefixtures("application")
def test_request_is_answered(connect, text, answer):
    status, headers, body = connect().ask(text)
    assert (status, body) == (200, answer)
    assert headers["content-type"] == "text/plain"
    assert "date" in headers


def test_request_that_comes_byte_by_byte_is_answered(connect):
    client = connect()
    for letter in post("abc"):
        client.send(letter)
    assert client.read()[2] == b"POST / 3 abc"


def test_requests_sent_at_once_are_answered_in_order(connect):
    client = connect()
    client.send("".join(get(f"/{number}") for number in range(200)) + post("abc"))
    for number in range(200):
        assert client.read()[2] == f"GET /{number} 0 ".encode()
    assert client.read()[2] == b"POST / 3 abc"


def test_connection_goes_on_after_an_upgrade_that_was_not_granted(connect):
    client = connect()
    client.send(post("abc", UPGRADE) + post("d", UPGRADE) + get("/a"))
    assert [client.read()[2] for _ in range(3)] == [b"POST / 3 abc", b"POST / 1 d", b"GET /a 0 "]


@pytest.mark.parametrize("connection", ["close, upgrade", "Upgrade, Close", "upgrade\r\nConnection: close"])
def test_connection_closes_after_an_upgrade_that_was_not_granted(connect, connection):
    client = connect()
    status, headers, body = client.ask(post("abc", f"Connection: {connection}\r\nUpgrade: h2c\r\n"))
    assert (status, headers["connection"], body) == (200, "close", b"POST / 3 abc")
    assert client.is_closed()


CHUNKED = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize("more", [get("/a"), "GET /a HTTP/1.1\r\nx", "G", "\x00"])
def test_what_comes_with_the_end_of_a_chunked_request_is_dropped(connect, application, more):
    client = connect()
    status, headers, body = client.ask(CHUNKED + more)
    assert (status, headers["connection"], body) == (200, "close", b"POST / 3 abc")
    assert client.is_closed()
    assert [request.path for request in application.requests] == ["/"]


def test_request_after_a_chunked_one_is_answered(connect):
    client = connect()
    assert client.ask(CHUNKED)[2] == b"POST / 3 abc"
    assert client.ask(get("/a"))[2] == b"GET /a 0 "


def test_head_has_no_body(connect):
    client = connect()
    client.send("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n")
    status, headers, _ = client.read(has_body=False)
    assert (status, headers["content-length"]) == (200, str(len("HEAD /a 0 ")))
    assert client.ask(get("/b"))[2] == b"GET /b 0 "


def test_client_that_waits_for_leave_gets_it(connect):
    client = connect()
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.read()[0] == 100
    assert client.ask("abc")[2] == b"POST / 3 abc"


@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "later"])
def test_leave_for_the_second_request_comes_after_the_first_answer(connect, application, at_once):
    application.gate.clear()
    client, asking = connect(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    client.send(get("/a") + asking if at_once else get("/a"))
    wait_until(lambda: application.requests)
    client.send("" if at_once else asking)
    application.gate.set()
    assert client.read()[2] == b"GET /a 0 "
    assert client.read()[0] == 100
    assert client.ask("abc")[2] == b"POST / 3 abc"


@pytest.mark.parametrize(
    "text",
    [get("/a", "Connection: close\r\n"), "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"],
    ids=["asked-for", "http-1.0"],
)
def test_connection_is_closed_after_the_answer(connect, text):
    client = connect()
    status, headers, _ = client.ask(text)
    assert (status, headers["connection"]) == (200, "close")
    assert client.is_closed()


REFUSED = {
    "nonsense": ("nonsense\r\n\r\n", 400, "Malformed HTTP request: "),
    "binary": (b"\x16\x03\x01\x02\x00\x01\x00", 400, "Malformed HTTP request: "),  # what TLS begins with
    "not-ascii": (get("/\xfc"), 400, "Malformed HTTP request: "),
    "proxy": ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Malformed HTTP request: this is no proxy"),
    "bad-header": (get("/", "a b: c\r\n"), 400, "Malformed HTTP request: "),
    "bad-length": (get("/", "Content-Length: -1\r\n"), 400, "Malformed HTTP request: "),
    "two-lengths": (get("/", "Content-Length: 1\r\nContent-Length: 2\r\n"), 400, "Malformed HTTP request: "),
    "length-and-chunked": (
        get("/", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        400,
        "Malformed HTTP request: ",
    ),
    "bad-chunk": (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        400,
        "Malformed HTTP request: ",
    ),
    "many-headers": (get("/", "A: b\r\n" * 1001), 431, "The headers are too large."),
    "short-headers": (
        get("/", "".join(f"{chr(97 + n % 26) * (n // 26 + 1)}:\r\n" for n in range(70))),
        431,
        "The headers are",
    ),
    "endless-trailer": (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " + "b" * 300_000,
        431,
        "The headers are too large.",
    ),
    "endless-chunk-extension": (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a=" + "b" * 300_000,
        431,
        "The headers are too large.",
    ),
    "long-header": (get("/", f"A: {'b' * 2000}\r\n"), 431, "The headers are too large."),
    "long-header-and-another-request": (
        get("/", f"A: {'b' * 2000}\r\n") + get("/a"),
        431,
        "The headers are too large.",
    ),
    "many-trailers": (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + "A: b\r\n" * 1001,
        431,
        "The headers are too large.",
    ),
    "endless-header": ("GET / HTTP/1.1\r\nA: " + "b" * 2000, 431, "The headers are too large."),
    "endless-path": ("GET /" + "b" * 2000, 431, "The headers are too large."),
}


@pytest.mark.parametrize(("text", "status", "message"), REFUSED.values(), ids=REFUSED)
def test_request_is_refused_and_the_connection_closed(connect, application, text, status, message):
    client = connect()
    given, headers, body = client.ask(text)
    assert given == status
    assert body.decode().startswith('{"error":"' + message)
    assert (headers["connection"], headers["x-seen"], headers["content-type"]) == ("close", "yes", "application/json")
    assert "date" in headers
    assert client.is_closed()
    assert application.requests == []
    assert REFUSALS[-1][0] == "127.0.0.1"
    assert REFUSALS[-1][3:] == (status, json.loads(body)["error"], len(body))
    assert connect().ask(get("/a"))[0] == 200


TOO_LARGE = {
    "announced-body": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n",
    "huge-body": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\nExpect: 100-continue\r\n\r\n",
    "huge-body-and-upgrade": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n" + UPGRADE + "\r\n",
    "chunked-body": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + f"3e8\r\n{'a' * 1000}\r\n" * 11,
}


@pytest.mark.parametrize("text", TOO_LARGE.values(), ids=TOO_LARGE)
def test_body_that_is_not_read_ends_the_connection(connect, application, text):
    client = connect()
    status, headers, body = client.ask(text)
    assert (status, headers["connection"], body) == (413, "close", b"too large")
    assert client.is_closed()
    assert application.requests == []
    assert connect().ask(get("/a"))[0] == 200


KNOWN = {
    "nonsense": ("nonsense\r\n\r\n", ("", "")),
    "endless-path": ("PUT /" + "b" * 2000, ("PUT", "/" + "b" * 2000)),
    "headers": (get("/a?c", f"A: {'b' * 2000}\r\n"), ("GET", "/a")),
    "body": ("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", ("POST", "/a")),
    "after-another": (get("/a") + "\x00", ("", "")),
}


@pytest.mark.parametrize(("text", "line"), KNOWN.values(), ids=KNOWN)
def test_what_is_known_of_a_refused_request_is_told(connect, text, line):
    client = connect()
    client.send(text)
    while (answer := client.read())[0] == 200:
        pass
    assert REFUSALS[-1][1:4] == (*line, answer[0])


STRANGERS = {
    "announced": "Content-Length: 1000000000\r\n",
    "chunked": "Transfer-Encoding: chunked\r\n",
    "waiting-for-leave": "Content-Length: 3\r\nExpect: 100-continue\r\n",
}


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS)
def test_what_is_answered_by_its_head_is_not_read(connect, application, headers):
    client = connect()
    status, answered, body = client.ask("POST / HTTP/1.1\r\nHost: x\r\nX-Stranger: 1\r\n" + headers + "\r\n")
    assert (status, answered["connection"], body) == (401, "close", b"no")
    assert client.is_closed()
    assert application.requests == []


@pytest.mark.parametrize("upgrade", ["", UPGRADE], ids=["", "upgrade"])
def test_connection_goes_on_behind_a_short_body_that_is_not_wanted(connect, application, upgrade):
    client = connect()
    client.send(get("/a") + post("a" * 100, "X-Stranger: 1\r\n" + upgrade) + get("/b", "X-Stranger: 1\r\n") + get("/c"))
    assert [client.read()[0] for _ in range(4)] == [200, 401, 401, 200]
    assert [request.path for request in application.requests] == ["/a", "/c"]


def test_nonsense_behind_a_short_body_that_is_not_wanted_is_refused(connect):
    client = connect()
    client.send(post("a" * 100, "X-Stranger: 1\r\n") + "nonsense\r\n\r\n")
    assert [client.read()[0] for _ in range(2)] == [401, 400]


def test_refused_client_can_read_why_while_it_still_sends(connect):
    with running(Limits()) as (_, _, port):
        client = connect(port)
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(20):
            client.send("a" * 50_000)
        assert client.read()[0] == 413


def test_what_came_before_nonsense_is_answered_first(connect):
    client = connect()
    client.send(get("/a") + get("/b") + "nonsense\r\n\r\n")
    assert [client.read()[0] for _ in range(3)] == [200, 200, 400]
    assert client.is_closed()


def test_request_whose_client_has_gone_is_marked(connect, application):
    application.gate.clear()
    client = connect()
    client.send(get("/a"))
    wait_until(lambda: application.requests)
    assert not application.requests[0].cancelled
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell
    client.close()
    wait_until(lambda: application.requests[0].cancelled)
    application.gate.set()
    assert connect().ask(get("/b"))[0] == 200


SLOW = {
    "half-a-head": ("GET / HTTP/1.1\r\nHost:", 408),
    "half-a-body": ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", 408),
    "nothing": ("", None),
    "nothing-more": (get("/"), 200),
}


@pytest.mark.slow
def test_slow_clients_are_sent_away(connect):
    limits = Limits(head_time=0.3, idle_time=0.3, linger_time=0.2, body_rate=1e9)
    with running(limits) as (server, _, port):
        clients = {name: connect(port) for name in SLOW}
        for name, (text, _) in SLOW.items():
            clients[name].send(text)
        for name, (_, status) in SLOW.items():
            answer = clients[name].read()
            assert (answer and answer[0]) == status, name
            assert clients[name].is_closed(), name
        wait_until(lambda: not len(server.server_state.connections))


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_client_that_does_not_read_is_sent_away(connect, contexts, tls, connection):
    with running(Limits(head_time=0.3), tls=contexts[0] if tls else None) as (server, application, port):
        client = connect(port, contexts[1] if tls else None)
        client.send(get("/", f"X-Answer-Size: 50000000\r\nConnection: {connection}\r\n"))
        wait_until(lambda: application.requests)
        wait_until(lambda: not len(server.server_state.connections))


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_client_that_reads_slowly_gets_its_whole_answer(connect, contexts, tls):
    size, step = 8_000_000, 300_000
    limits = Limits(head_time=0.8, idle_time=0.8, linger_time=0.1)
    with running(limits, tls=contexts[0] if tls else None) as (_, _, port):
        clients = [connect(port, contexts[1] if tls else None) for _ in range(2)]
        for client, connection in zip(clients, ("keep-alive", "close"), strict=True):
            client.send(get("/", f"X-Answer-Size: {size}\r\nConnection: {connection}\r\n"))
            while client.reader.readline() != b"\r\n":
                pass
        for _ in range(20):  # for twice as long as the limit
            time.sleep(0.08)
            assert [len(client.reader.read(step)) for client in clients] == [step, step]
        rest = len("GET / 0 ") + size - 20 * step
        assert [len(client.reader.read(rest)) for client in clients] == [rest, rest]


@pytest.mark.slow
def test_client_that_does_not_read_is_answered_no_more(connect):
    with running(LIMITS) as (_, application, port):
        client = connect(port)
        client.send(get("/", "X-Answer-Size: 9000000\r\n") * 20)
        wait_until(lambda: application.requests)
        for _ in range(20):  # answers of other clients, so that there was time for those of this one
            connect(port).ask(get("/b"))
        assert sum(request.path == "/" for request in application.requests) < 5
        assert [client.read()[0] for _ in range(20)] == [200] * 20


@pytest.mark.slow
def test_body_that_comes_steadily_may_take_long(connect):
    with running(Limits(head_time=0.6, body_rate=10)) as (_, _, port):
        client = connect(port)
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n")
        for _ in range(20):
            time.sleep(0.05)
            client.send("a")
        assert client.read()[2] == b"POST / 20 " + b"a" * 20


def test_largest_body_goes_where_all_are_too_large_together(connect):
    clients = [connect(), connect()]
    for client, size in zip(clients, (9000, 8000), strict=True):
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9500\r\n\r\n" + "a" * size)
    status, _, body = clients[0].read()
    assert (status, body) == (503, b'{"error":"The server holds too many bodies. Try again later."}')
    assert clients[1].ask("a" * 1500)[2].startswith(b"POST / 9500 ")


def test_bodies_count_until_they_are_answered(connect, application):
    application.gate.clear()
    answered, other, later = connect(), connect(), connect()
    answered.send(post("a" * 9000))
    wait_until(lambda: application.requests)
    refused = (503, b'{"error":"The server holds too many bodies. Try again later."}')
    status, headers, body = other.ask(post("b" * 6001))  # complete at once, and the newest
    assert (status, body) == refused
    later.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9500\r\n\r\n" + "c" * 6001)  # not complete
    status, headers, body = later.read()
    assert ((status, body), headers["connection"]) == (refused, "close")
    application.gate.set()
    assert answered.read()[2].startswith(b"POST / 9000 ")
    assert connect().ask(post("d" * 9500))[2].startswith(b"POST / 9500 ")


def test_body_whose_client_has_gone_counts_as_long_as_a_thread_has_it(connect, application):
    application.gate.clear()
    gone, other = connect(), connect()
    gone.send(post("a" * 9000))
    wait_until(lambda: application.requests)
    gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    wait_until(lambda: application.requests[0].cancelled)
    assert other.ask(post("b" * 6001))[0] == 503
    application.gate.set()
    wait_until(lambda: connect().ask(post("b" * 9500))[0] == 200)


class Measuring(Echo):
    """Reads bodies of any size."""

    async def __call__(self, scope, receive, send):
        body = await read_body(receive, 10**9)
        await send_answer(send, 200, b"%d" % len(body))


@pytest.mark.slow
def test_body_in_many_chunks_costs_as_much_as_its_bytes(connect):
    number = 100_000
    with running(Limits(), kind=Measuring) as (_, _, port):
        client = connect(port)
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        tracemalloc.start()
        try:
            for _ in range(number // 1000):
                client.send(b"1\r\na\r\n" * 1000)
            client.send("0\r\n\r\n")
            assert client.read()[2] == b"%d" % number
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most < 4 * number + 500_000


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_body_arrives_whole(connect, size):
    with running(Limits(), kind=Measuring) as (_, _, port):
        assert connect(port).ask(post("a" * size))[2] == b"%d" % size


def test_many_connections_at_once(connect):
    clients = [connect() for _ in range(200)]
    for number, client in enumerate(clients):
        client.send(get(f"/{number}"))
    assert [client.read()[2] for client in clients] == [f"GET /{number} 0 ".encode() for number in range(200)]


@pytest.mark.slow
def test_handshakes_count_as_connections(connect, contexts):
    limits = Limits(connections=2, linger_time=0.1)
    with running(limits, tls=contexts[0]) as (server, _, port):
        silent = [connect(port), connect(port)]
        wait_until(lambda: len(server.server_state.connections) == 2)
        with contextlib.suppress(ConnectionResetError):
            assert connect(port).is_closed()
        silent[0].close()
        wait_until(lambda: len(server.server_state.connections) == 1)
        assert connect(port, contexts[1]).ask(get("/a"))[2] == b"GET /a 0 "
        silent[1].send("GET / HTTP/1.1\r\n\r\n")  # no handshake
        wait_until(lambda: len(server.server_state.connections) == 1)


def test_handshake_has_a_limit_of_time(connect, contexts):
    with running(Limits(handshake_time=0.2), tls=contexts[0]) as (server, _, port):
        client = connect(port)
        wait_until(lambda: len(server.server_state.connections))
        with contextlib.suppress(ConnectionResetError):
            assert client.is_closed()
        wait_until(lambda: not len(server.server_state.connections))


@pytest.mark.parametrize("grace", [0, WAIT])
def test_stop_does_not_wait_for_handshakes(connect, contexts, grace):
    with running(grace=grace, tls=contexts[0]) as (server, _, port):
        client = connect(port)
        wait_until(lambda: len(server.server_state.connections))
        server.stop()
        with contextlib.suppress(ConnectionResetError):
            assert client.is_closed()


class Held(Echo):
    """Keeps the event loop until its gate is open, so that connections wait to be accepted."""

    async def __call__(self, scope, receive, send):
        if scope["path"] == "/hold":
            self.requests.append(scope)
            assert self.gate.wait(WAIT)
            time.sleep(0.2)  # so that the server looks whether it should stop, ten times per second, before it accepts
        await send_answer(send, 200, b"")


def test_clients_that_have_connected_before_a_stop_are_answered(connect):
    with running(kind=Held) as (server, application, port), ThreadPoolExecutor(1) as threads:
        application.gate.clear()
        first = connect(port)
        first.send(get("/hold"))
        wait_until(lambda: application.requests)
        waiting = [connect(port) for _ in range(20)]
        for client in waiting:
            client.send(get("/"))
        stopped = threads.submit(server.stop)
        wait_until(lambda: server.should_exit)
        application.gate.set()
        assert [client.read()[0] for client in [first, *waiting]] == [200] * 21
        stopped.result(WAIT)


class Broken(Echo):
    """Fails, as an application may."""

    async def __call__(self, scope, receive, send):
        raise ValueError("no answer")


class Silent(Echo):
    """Ends without an answer."""

    async def __call__(self, scope, receive, send):
        await receive()


def fail(*arguments):
    raise ValueError("no answer")


BROKEN = {"raises": (Broken, "ValueError: no answer"), "ends": (Silent, "returned without starting response")}


@pytest.mark.parametrize(("kind", "reason"), BROKEN.values(), ids=BROKEN)
def test_what_fails_is_answered_and_logged(connect, caplog, kind, reason):
    with running(kind=kind) as (_, _, port):
        client = connect(port)
        assert client.ask(get("/a"))[::2] == (500, b"Internal Server Error")
        assert client.is_closed()
        assert reason in caplog.text
        assert connect(port).ask(get("/b"))[0] == 500


class Torn(Echo):
    """Fails in the middle of its answer."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        raise ValueError("no answer")


def test_connections_are_accepted_after_one_whose_refusal_failed(connect, caplog):
    with running(Limits(connections=1), refused=fail) as (server, _, port):
        first = connect(port)
        assert first.ask(get("/a"))[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert connect(port).is_closed()
        wait_until(lambda: "ValueError: no answer" in caplog.text)
        first.close()
        wait_until(lambda: not server.server_state.connections)
        assert connect(port).ask(get("/b"))[0] == 200


@pytest.mark.parametrize("part", ["refused", "application"])
def test_connection_whose_answer_cannot_be_written_ends(connect, caplog, part):
    broken = {"refused": fail} if part == "refused" else {"kind": Torn}
    with running(**broken) as (_, _, port):
        client = connect(port)
        client.send("nonsense\r\n\r\n" if part == "refused" else get("/a"))
        with contextlib.suppress(ConnectionResetError):
            assert client.reader.read().partition(b"\r\n\r\n")[2] == b""
        assert "ValueError: no answer" in caplog.text


@pytest.mark.slow
def test_slow_client_whose_refusal_fails_stops_no_other(connect, caplog):
    with running(Limits(head_time=0.1), refused=fail) as (_, _, port):
        client = connect(port)
        client.send("GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert client.is_closed()
        assert connect(port).ask(get("/a"))[0] == 200


def test_stop_answers_what_is_in_flight_and_refuses_more(connect):
    with running() as (server, application, port):
        application.gate.clear()
        busy, idle = connect(port), connect(port)
        busy.send(get("/a"))
        wait_until(lambda: application.requests)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert idle.is_closed()
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        application.gate.set()
        status, headers, body = busy.read()
        assert (status, headers["connection"], body) == (200, "close", b"GET /a 0 ")
        stopping.join(WAIT)
        assert not stopping.is_alive()


def test_stop_does_not_wait_longer_than_the_grace(connect):
    with running(grace=0.2) as (server, application, port):
        application.gate.clear()
        client = connect(port)
        client.send(get("/a"))
        wait_until(lambda: application.requests)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < WAIT / 2
        with contextlib.suppress(ConnectionResetError):
            assert client.read() is None


def test_port_that_was_just_taken_is_refused():
    with ThreadPoolExecutor(1) as threads, socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())  # Linux lets both bind, but only one listen
        first.listen()
        server = AsgiServer(Echo(threads), second, grace=1)
        with pytest.raises(ServingError, match=r"^UNAVAILABLE: Cannot listen on --rest_api_port=\d+: Address already"):
            server.start()
        server.stop()


DAMAGED = (post("abc", UPGRADE) + CHUNKED + get("http://h/a?b") + get("/a", "X-Stranger: 1\r\n")).encode()


@settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, len(DAMAGED)), st.integers(0, 20), st.binary(max_size=4)), max_size=4),
    st.lists(st.integers(0, len(DAMAGED)), max_size=3),
)
def test_damaged_requests_are_answered_or_refused(http, caplog, changes, cuts):
    text = DAMAGED
    for start, length, inserted in changes:
        text = text[:start] + inserted + text[start + length :]
    places = sorted({0, *cuts, len(text)})
    with contextlib.closing(Client(http[1])) as client, contextlib.suppress(ConnectionError):  # of what is not read
        for start, end in pairwise(places):
            client.send(text[start:end])
        client.end()
        answers = client.reader.read()
        assert answers[:9] in (b"", b"HTTP/1.1 ")
    assert not caplog.records


WITHOUT_DESCRIPTORS = """
import resource, socket, sys
from serving.rest.asgi_server import AsgiServer

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})

bound = socket.create_server(("127.0.0.1", 0))
server = AsgiServer(app, bound, 0)
server.start()
socket.create_connection(bound.getsockname()).close()  # the event loop has all that it needs itself
limit = bound.fileno() + 20
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
print(bound.getsockname()[1], flush=True)
sys.stdin.readline()
server.stop()
"""


@pytest.mark.slow
def test_server_accepts_again_once_descriptors_are_free(connect):
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        clients = [connect(port) for _ in range(40)]
        assert clients[0].ask(get("/"))[0] == 200
        clients[-1].socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            clients[-1].ask(get("/"))
        for client in clients[:-1]:
            client.close()
        assert connect(port).ask(get("/"))[0] == 200
        process.stdin.close()


def wait_until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
