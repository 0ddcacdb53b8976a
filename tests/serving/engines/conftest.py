"""`python -m serving` as a process, with stand-ins for TensorFlow Serving and docker on its PATH."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import httpx
import pytest

FOLDER = pathlib.Path(__file__).parent
HIDDEN = ("TENSORFLOW_MODEL_SERVER", "TENSORFLOW_SERVING_IMAGE", "STAND_IN_")


class Started:
    """A server that was started, and its stand-in."""

    def __init__(self, process, record):
        self.process = process
        self._record = record

    def called(self):
        """The arguments and the environment that the stand-in got."""
        end = time.monotonic() + 60
        while not self._record.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        return json.loads(self._record.read_text())

    def wait_until_it_answers(self, port, name="default"):
        url = f"http://127.0.0.1:{port}/v1/models/{name}"
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(httpx.ConnectError):
                assert httpx.get(url, trust_env=False).status_code == 200
                return
            time.sleep(0.01)
        raise AssertionError("it does not answer")


@pytest.fixture
def path(tmp_path):
    """A PATH with both stand-ins under the names of what they stand for, and Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("tensorflow_model_server", "docker"):
        (folder / name).symlink_to(FOLDER / f"stand_in_for_{name}")
    (folder / "python3").symlink_to(sys.executable)
    return folder


@pytest.fixture
def start(path, tmp_path):
    """Starts a server; the keywords are its environment."""

    @contextlib.contextmanager
    def start(*flags, **environment):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
        record = tmp_path / "record.json"
        environment = inherited | {"PATH": str(path), "STAND_IN_RECORD": str(record)} | environment
        command = [sys.executable, "-m", "serving", *map(str, flags)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes) as process:
            try:
                yield Started(process, record)
            finally:
                process.kill()

    return start


@pytest.fixture
def answer(start):
    """Runs a server that is to fail: its status, the one line on its standard output, and its standard error."""

    def answer(*flags, **environment):
        with start(*flags, **environment) as started:
            output, errors = started.process.communicate(timeout=60)
        assert "Traceback" not in errors
        (line,) = output.splitlines()
        return started.process.returncode, line.removeprefix("Failed to start server. Error: "), errors

    return answer


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def base_path(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    return folder
