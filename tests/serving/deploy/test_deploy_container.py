"""The container: what it is made of, and its command lines started as processes under its conditions.

Where the system allows it, the processes run as a user without a name, on a read-only root; elsewhere as this
user, in a directory that can't be written. HOME is a directory that does not exist.
"""

import configparser
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import grpc
import httpx
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

pytestmark = pytest.mark.xdist_group("serving-command")

ROOT = pathlib.Path(__file__).parents[3]
STRANGER = [
    *("unshare", "--mount", "--", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"),
    *("setpriv", "--reuid=12345", "--regid=0", "--clear-groups", "--no-new-privs"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--"),  # Python may lie in /root
]
WAIT = 120.0  # seconds that a start may take


@pytest.fixture(scope="module")
def instructions(deploy):
    """The instructions of the Containerfile: their words after the name."""
    text = re.sub(r"^#.*\n", "", (deploy / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [line.split(maxsplit=1) for line in text.splitlines() if line]


@pytest.fixture(scope="module")
def environment(instructions):
    """The container's environment, with this Python in place of its own."""
    set_there = dict(words.split("=", 1) for name, words in instructions if name == "ENV")
    path = set_there["PATH"].replace("/opt/serving/bin", str(pathlib.Path(sys.executable).parent))
    return {**set_there, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def isolation():
    if all(map(shutil.which, ("unshare", "setpriv"))):
        written = subprocess.run([*STRANGER, "touch", "/tmp/written"], capture_output=True, text=True, check=False)
        if "Read-only file system" in written.stderr:
            return STRANGER
    return []


@contextmanager
def started(command, environment, tmp_path):
    directory = tmp_path / "read-only"
    directory.mkdir(mode=0o555)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd=directory, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def exports(zoo_path):
    """Where the containers find their model: KServe's storage initializer leaves no directory for the version."""
    with tempfile.TemporaryDirectory() as name:  # pytest's are closed to other users
        os.chmod(name, 0o755)
        places = {"kubernetes": pathlib.Path(name) / "digits", "kserve": pathlib.Path(name) / "models"}
        shutil.copytree(zoo_path, places["kubernetes"])
        shutil.copytree(zoo_path / "00000123", places["kserve"])
        os.chmod(places["kubernetes"], 0o755)
        yield places


def free_ports():
    sockets = [socket.create_server(("", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def call_of(container, export):
    """The container's arguments, filled in, with other ports and paths; the ports by their flags."""
    ports = dict(zip(("port", "rest_api_port"), free_ports(), strict=True))
    own = {f"--{flag}": f"--{flag}={port}" for flag, port in ports.items()}
    own["--model_base_path"] = f"--model_base_path={export}"
    args = [own.get(arg.partition("=")[0], arg) for arg in container["args"]]
    cpus = container["resources"]["requests"]["cpu"]
    return [arg.replace("{{.Name}}", "digits").replace("$(CPUS)", cpus) for arg in args], ports


def probe(container, name, client):
    """The path of a probe is asked on the REST port, which it names or numbers."""
    asked = container[name]["httpGet"]
    numbers = {port.get("name"): port["containerPort"] for port in container["ports"]}
    assert f"--rest_api_port={numbers.get(asked['port'], asked['port'])}" in container["args"]
    try:
        return client.get(asked["path"]).status_code
    except httpx.TransportError:
        return None


def client_of(url):
    return httpx.Client(base_url=url, trust_env=False, timeout=20)


def wait_for(process, answers):
    end = time.monotonic() + WAIT
    while not answers():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(str(process.communicate()))
        time.sleep(0.5)


def answers_over_grpc(port, request):
    with grpc.insecure_channel(f"127.0.0.2:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return list(stub.Predict(request, timeout=20, wait_for_ready=True).outputs["y"].float_val)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", ["kubernetes", "kserve"])
def test_command_serves(place, containers, exports, deploy, environment, isolation, predict_request, tmp_path):
    container = containers[place]
    args, ports = call_of(container, exports[place])
    (name,) = [arg.split("=")[1] for arg in args if arg.startswith("--model_name=")]
    rest_port, grpc_port = (ports[flag] for flag in ("rest_api_port", "port"))
    command = [*isolation, deploy / "tensorflow_model_server", *args]
    # A server that listens on 127.0.0.1 alone does not answer here.
    with started(command, environment, tmp_path) as process, client_of(f"http://127.0.0.2:{rest_port}") as client:
        wait_for(process, lambda: probe(container, "readinessProbe", client) == 200)
        for other in {"startupProbe", "livenessProbe"} & container.keys():
            assert probe(container, other, client) == 200
        answer = client.post(f"/v1/models/{name}:predict", json={"instances": [1]})
        assert answer.json() == {"predictions": [2.5]}
        assert client.get("/metrics").status_code == 200
        assert answers_over_grpc(grpc_port, predict_request(model=name, x=np.float32([1]))) == [2.5]
        process.terminate()
        shown = process.communicate(timeout=WAIT)
    assert process.returncode == 0, shown
    warned = [line for line in shown[1].splitlines() if " INFO " not in line]
    assert warned == []


@pytest.mark.slow
def test_server_without_a_folder_for_temporary_files_says_so(deploy, environment, isolation, exports, tmp_path):
    if not isolation:
        pytest.skip("needs a root that is read-only")
    without = {name: value for name, value in environment.items() if name != "TMPDIR"}
    args = ["--port=0", f"--rest_api_port={free_ports()[0]}", f"--model_base_path={exports['kserve']}"]
    with started([*isolation, deploy / "tensorflow_model_server", *args], without, tmp_path) as process:
        shown = process.communicate(timeout=WAIT)
    told = (
        "No folder for temporary files can be written, and TensorFlow needs one. Set TMPDIR in the environment to one, "
    )
    assert shown == (f"Failed to start server. Error: FAILED_PRECONDITION: {told}such as /dev/shm\n", "")
    assert process.returncode == 255


def test_entry_point_passes_arguments_on_as_they_are(deploy, tmp_path):
    stand_in = tmp_path / "python"  # a stand-in for Python, which shows what it was given
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [deploy / "tensorflow_model_server", "--model_name=a b", "--version_label=", "*"]
    shown = subprocess.run(command, env=environment, cwd=deploy, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["-m", "serving", "--model_name=a b", "--version_label=", "*"]


def test_entry_point_is_where_kserve_calls_it(instructions, containers):
    (entry_point,) = [words for name, words in instructions if name == "ENTRYPOINT"]
    (path,) = containers["kserve"]["command"]
    assert entry_point == f'["{path}"]'
    assert ["COPY", f"serving/deploy/tensorflow_model_server {path}"] in instructions
    assert os.access(ROOT / "serving" / "deploy" / "tensorflow_model_server", os.X_OK)


def test_what_is_copied_is_there(instructions):
    copies = [shlex.split(words)[:-1] for name, words in instructions if name == "COPY" and "--from" not in words]
    copied = [name for names in copies for name in names]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()


def test_user_is_a_number_other_than_root(instructions):
    # runAsNonRoot can't be checked for a name.
    (user,) = [words for name, words in instructions if name == "USER"]
    assert int(user) > 0


def test_tensorflow_is_that_of_the_extra(instructions):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = re.search(r"^tensorflow([<>=]\S+)", setup["options.extras_require"]["serving"], re.MULTILINE)
    runs = " ".join(words for name, words in instructions if name == "RUN")
    assert "'.[serving]'" in runs
    assert f"'tensorflow-cpu{asked[1]}'" in runs


def test_python_is_one_that_the_package_takes(instructions):
    versions = {words.split()[0] for name, words in instructions if name == "FROM"}
    (image,) = versions
    (minor,) = re.findall(r"python:3\.(\d+)-slim", image)
    assert f"Programming Language :: Python :: 3.{minor}" in (ROOT / "setup.cfg").read_text()
    assert f"/python3.{minor}/site-packages" in " ".join(words for name, words in instructions if name == "RUN")
