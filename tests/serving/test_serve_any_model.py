"""The page on serving any Keras model does what it says, from the export to the answers."""

import contextlib
import io
import pathlib
import re
import time

import httpx
import pytest
import tensorflow as tf

from serving.flags import parse
from tests.pages import ROOT, blocks_in, printed_by
from training.commands import _with_flags

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]

PAGE = ROOT / "docs/serve_any_model.md"


def sections():
    """The blocks of code of each numbered section, each a language and a text."""
    return list(map(blocks_in, re.split(r"^## \d\. .*$", PAGE.read_text(), flags=re.MULTILINE)[1:]))


def wait_for_version(server, version):
    for _ in range(100):
        status = httpx.get(f"http://127.0.0.1:{server.rest_port}/v1/models/colour").json()["model_version_status"][0]
        if (status["version"], status["state"]) == (version, "AVAILABLE"):
            return
        time.sleep(0.1)
    raise AssertionError(f"version {version} does not answer")


def test_page_works_in_its_order(serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export, command, curls, client, files = sections()
    names = {}
    exec(export[0][1], names)
    words = command[0][1].split()[2:]
    assert parse(_with_flags(words)).options.model_name == "colour"
    with serve(tmp_path / words[0], "colour") as server:
        (_, status), (_, example), (_, purple), (_, answer) = curls
        assert '"state": "AVAILABLE"' in printed_by(status, server, tmp_path)
        assert "predictions" in printed_by(example, server, tmp_path)
        assert printed_by(purple, server, tmp_path) == answer.strip()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(client[0][1].replace("localhost:8500", f"127.0.0.1:{server.grpc_port}"), {})
        assert printed.getvalue() == client[1][1]
        exec(files[0][1], names)
        wait_for_version(server, "2")
        red = tf.broadcast_to(tf.constant([255, 0, 0], tf.uint8), (8, 8, 3))
        pathlib.Path("photo.png").write_bytes(tf.io.encode_png(red).numpy())
        assert printed_by(files[1][1], server, tmp_path) == '{"predictions":[[1.0,0.0,0.0]]}' * 2
