"""One client of each kind for the server that all tests share."""

import asyncio
import contextlib

import pytest

from serving.client import AsyncClient, Client

KINDS = ("grpc", "rest", "async-grpc", "async-rest")


class Awaited:
    """An AsyncClient that can be called as a Client is."""

    def __init__(self, client, runner):
        self._client = client
        self._runner = runner

    def __getattr__(self, name):
        return lambda *arguments, **options: self._runner.run(getattr(self._client, name)(*arguments, **options))


def _url(server, kind):
    return f"grpc://127.0.0.1:{server.grpc_port}" if "grpc" in kind else f"http://127.0.0.1:{server.rest_port}"


@contextlib.contextmanager
def _open_client(kind, url, *arguments, **options):
    if not kind.startswith("async"):
        with Client(url, *arguments, **options) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        client = Awaited(AsyncClient(url, *arguments, **options), runner)
        yield client
        client.close()


@pytest.fixture(scope="session")
def open_client():
    return _open_client


@pytest.fixture(scope="session")
def url_of():
    return _url


@pytest.fixture(scope="session", params=KINDS)
def client(request, server):
    with _open_client(request.param, _url(server, request.param), "zoo") as opened:
        yield opened
