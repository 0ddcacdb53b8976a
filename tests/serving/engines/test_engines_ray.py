"""Ray Serve run by `--engine=ray`: what it refuses, how it fails, and the same answers as the embedded server."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.engines.ray import TABLE
from serving.options import Options

pytestmark = pytest.mark.xdist_group("serving-ray")

RAY = ("--engine=ray", "--host=0.0.0.0")
FOLDER = "--model_base_path=m"
LONG = 3000  # seconds; Ray starts half a dozen processes, each of which imports much


def run_without(package, *flags):
    code = f"""
import sys
sys.modules[{package!r}] = None
from serving.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    return subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, timeout=90, check=False)


def test_every_option_has_an_entry():
    assert TABLE.keys() == {field.name for field in dataclasses.fields(Options)}


def test_ray_is_not_imported_without_the_flag(answer, free_port):
    code = (
        f"import sys; from serving.__main__ import main; main(['--port={free_port}']); sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=90, check=False).returncode == 0


def test_ray_that_is_not_installed(free_port):
    result = run_without("ray", *RAY, f"--port={free_port}", FOLDER)
    brings_it = "ray is not installed; in a clone of keras_prelu, pip install -e '.[ray]' brings it"
    assert (result.returncode, result.stdout) == (255, f"Failed to start server. Error: {brings_it}\n")


REFUSED = {
    "socket": ("--grpc_socket_path=s", "has no UNIX socket"),
    "arguments of gRPC": ("--grpc_channel_arguments=a=1", "takes no arguments of gRPC"),
    "TLS of gRPC": ("--ssl_config_file=f", "has no TLS for the gRPC API"),
    "TLS of REST": ("--rest_api_ssl_config_file=f", "has no TLS for the REST API"),
    "connections": ("--rest_api_max_connections=9", "takes any number of connections"),
}


@pytest.mark.parametrize(("flag", "reason"), REFUSED.values(), ids=REFUSED)
def test_flag_that_protects_is_refused(answer, flag, reason):
    status, line, _ = answer(*RAY, FOLDER, flag)
    told = f"INVALID_ARGUMENT: {flag}: Ray Serve {reason}; leave the flag out, or take --engine=embedded"
    assert (status, line) == (255, told)


def test_host_that_grpc_cannot_keep_to_is_refused(answer):
    status, line, _ = answer("--engine=ray", FOLDER)
    told = (
        "INVALID_ARGUMENT: --host=127.0.0.1: Ray's gRPC proxy listens on all addresses; give --host=0.0.0.0 if it may, "
        "or --port=0, which turns the gRPC API off"
    )
    assert (status, line) == (255, told)


def test_one_port_for_both_apis_is_refused(answer, free_port):
    _, line, _ = answer(*RAY, FOLDER, f"--port={free_port}", f"--rest_api_port={free_port}")
    assert line == f"INVALID_ARGUMENT: --rest_api_port={free_port} is the port of the gRPC API; give another port"


def test_fewer_replicas_at_most_than_at_least_are_refused(answer):
    _, line, _ = answer(*RAY, FOLDER, "--ray_min_replicas=3", "--ray_max_replicas=2")
    assert line == "INVALID_ARGUMENT: --ray_max_replicas=2 is less than --ray_min_replicas=3"


def test_port_that_is_taken(answer):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        status, line, _ = answer(*RAY, FOLDER, f"--port={port}")
    told = (
        f"UNAVAILABLE: Cannot listen on --port={port} of 0.0.0.0: Address already in use. Stop what listens there, or "
        "give another port"
    )
    assert (status, line) == (255, told)


def test_flag_without_effect_is_told(answer):
    with socket.create_server(("0.0.0.0", 0)) as taken:  # so that it ends
        _, _, errors = answer(*RAY, FOLDER, f"--port={taken.getsockname()[1]}", "--enable_profiler")
    assert errors == "--enable_profiler has no effect in Ray Serve\n"


@pytest.mark.slow
@pytest.mark.timeout(LONG)
def test_cluster_that_is_not_there(free_port):
    command = [sys.executable, "-m", "serving", *RAY, f"--port={free_port}", FOLDER, "--ray_address=127.0.0.1:1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    (line,) = result.stdout.splitlines()
    told = "Failed to start server. Error: UNAVAILABLE: Cannot join the Ray cluster at --ray_address=127.0.0.1:1: "
    assert (result.returncode, line[: len(told)]) == (255, told)


@pytest.mark.slow
@pytest.mark.timeout(LONG)
def test_model_that_cannot_load(free_port, base_path):
    (base_path / "1").mkdir()
    flags = (*RAY, f"--port={free_port}", f"--model_base_path={base_path}", "--max_num_load_retries=0")
    ray, embedded = (
        subprocess.run(
            [sys.executable, "-m", "serving", *each], capture_output=True, text=True, timeout=LONG, check=False
        )
        for each in (flags, (*flags, "--engine=embedded"))
    )
    assert (ray.returncode, ray.stdout) == (embedded.returncode, embedded.stdout)


@pytest.mark.slow
@pytest.mark.timeout(LONG)
def test_tests_of_the_embedded_server_hold():
    files = [f"tests/serving/test_serving_{api}.py" for api in ("rest", "rpc")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"SERVING_TEST_ENGINE": "ray"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONG, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.timeout(LONG)
def test_no_request_fails_while_a_replica_dies_and_the_version_changes(tmp_path, save_plus, predict_request):
    save_plus(tmp_path / "m" / "1", 1)
    save_plus(tmp_path / "2", 2)
    with replicas(tmp_path / "m", "--ray_min_replicas=2", "--file_system_poll_wait_seconds=0.1") as (process, port):
        versions, stop = [], threading.Event()
        message = predict_request(x=[1.0], model="m")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, ThreadPoolExecutor(32) as streams:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            asking = [streams.submit(ask_until, stop, predict, message, versions) for _ in range(32)]
            try:
                wait_until(lambda: versions)
                killed = replica_processes(process)[0]
                killed.kill()
                (tmp_path / "2").rename(tmp_path / "m" / "2")
                wait_until(lambda: len(replica_processes(process)) == 2 and set(versions[-64:]) == {2})
            finally:
                stop.set()
        for each in asking:
            each.result()  # raises if a request has failed
        assert set(versions) == {1, 2}


@pytest.mark.slow
@pytest.mark.timeout(LONG)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_of_ray_is_left(tmp_path, save_plus, number, status):
    save_plus(tmp_path / "m" / "1", 1)
    with replicas(tmp_path / "m") as (process, _):
        children = psutil.Process(process.pid).children(recursive=True)
        assert replica_processes(process)
        process.send_signal(number)
        assert process.wait(LONG) == status
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


@contextlib.contextmanager
def replicas(base_path, *flags):
    """A server whose model is named m; gives its process and its port of gRPC."""
    with socket.create_server(("", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "serving",
        *RAY,
        f"--port={port}",
        "--model_name=m",
        f"--model_base_path={base_path}",
    ]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == f"Running gRPC ModelServer at 0.0.0.0:{port} ...\n"
            yield process, port
        finally:
            process.terminate()


def replica_processes(process):
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "ServeReplica" in "".join(child.cmdline())]


def ask_until(stop, predict, message, versions):
    while not stop.is_set():
        versions.append(predict(message, timeout=LONG).model_spec.version.value)


def wait_until(condition):
    end = time.monotonic() + LONG / 2
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
