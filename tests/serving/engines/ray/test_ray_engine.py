"""Servers by `--engine=ray`, with real Ray: how they fail, end, and answer while replicas die."""

import contextlib
import pathlib
import secrets
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

from serving.parity import command as parity

RAY = ("--engine=ray", "--host=0.0.0.0")
FOLDER = "--model_base_path=m"
LONG = 300  # seconds; Ray starts half a dozen processes, each of which imports much
pytestmark = pytest.mark.timeout(2 * LONG)


def test_cluster_that_is_not_there(free_port):
    command = [sys.executable, "-m", "serving", *RAY, f"--port={free_port}", FOLDER, "--ray_address=127.0.0.1:1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    (line,) = result.stdout.splitlines()
    told = "Failed to start server. Error: UNAVAILABLE: Cannot join the Ray cluster at --ray_address=127.0.0.1:1: "
    assert (result.returncode, line[: len(told)]) == (255, told)


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


def test_answers_are_those_of_the_embedded_server(serve, zoo_path, capsys):
    with replicas(zoo_path, name="zoo") as (_, port), serve(zoo_path) as embedded:
        urls = [f"grpc://127.0.0.1:{each}" for each in (port, embedded.grpc_port)]
        status = parity.main([*urls, "--model=zoo"])
    assert status == 0, capsys.readouterr().out


def test_no_request_fails_while_a_replica_dies_and_the_version_changes(tmp_path, save_plus, predict_request):
    save_plus(tmp_path / "m" / "1", 1)
    save_plus(tmp_path / "2", 2)
    flags = ("--ray_min_replicas=2", "--file_system_poll_wait_seconds=0.1")
    with replicas(tmp_path / "m", *flags) as (process, port), asked(port, predict_request) as versions:
        replica_processes(process)[0].kill()
        (tmp_path / "2").rename(tmp_path / "m" / "2")
        wait_until(lambda: len(replica_processes(process)) == 2 and set(versions[-64:]) == {2})
    assert set(versions) == {1, 2}


def test_replicas_follow_the_load_without_a_failed_request(tmp_path, save_plus, predict_request):
    save_plus(tmp_path / "m" / "1", 1)
    flags = ("--ray_max_replicas=2", "--grpc_max_threads=2")
    with replicas(tmp_path / "m", *flags) as (process, port):
        assert len(replica_processes(process)) == 1
        with asked(port, predict_request):
            wait_until(lambda: len(replica_processes(process)) == 2)


def test_no_request_fails_while_a_machine_of_a_cluster_dies(
    tmp_path, save_plus, predict_request, free_port, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    save_plus(tmp_path / "m" / "1", 1)
    address = f"127.0.0.1:{free_port}"
    with (
        machine("--head", f"--port={free_port}", "--include-dashboard=false") as head,
        machine(f"--address={address}") as other,
    ):
        flags = (f"--ray_address={address}", "--ray_min_replicas=2")
        with replicas(tmp_path / "m", *flags) as (_, port), asked(port, predict_request, proxy_of=head) as versions:
            assert replica_processes(other)
            for each in (other, *psutil.Process(other.pid).children(recursive=True)):
                each.kill()
            before = len(versions)
            wait_until(lambda: len(versions) > before + 1000)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_of_ray_is_left(tmp_path, save_plus, number, status):
    save_plus(tmp_path / "m" / "1", 1)
    with replicas(tmp_path / "m") as (process, _):
        children = psutil.Process(process.pid).children(recursive=True)
        assert replica_processes(process)
        process.send_signal(number)
        assert process.wait(LONG) == status
    _, alive = psutil.wait_procs(children, timeout=90)  # agents of a raylet that was killed report that for 60 s
    assert alive == []


@contextlib.contextmanager
def replicas(base_path, *flags, name="m"):
    """A server of one model; gives its process and its port of gRPC."""
    with socket.create_server(("", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "serving",
        *RAY,
        f"--port={port}",
        f"--model_name={name}",
        f"--model_base_path={base_path}",
    ]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == f"Running gRPC ModelServer at 0.0.0.0:{port} ...\n"
            yield process, port
        finally:
            process.terminate()


@contextlib.contextmanager
def asked(port, predict_request, proxy_of=None):
    """32 streams ask until the block ends, and none may fail; gives the versions that have answered."""
    versions, stop = [], threading.Event()
    message = predict_request(x=[1.0], model="m")
    with connected(port, proxy_of) as channel, ThreadPoolExecutor(32) as streams:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        asking = [streams.submit(ask_until, stop, predict, message, versions) for _ in range(32)]
        try:
            wait_until(lambda: versions)
            yield versions
        finally:
            stop.set()
    for each in asking:
        each.result()  # raises if a request has failed


@contextlib.contextmanager
def connected(port, machine):
    """A channel to the proxy of a machine, or to any one: all that run here share the port."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            grpc.channel_ready_future(channel).result(LONG)
            if machine is None or has_connection(machine, port):
                yield channel
                return
    raise AssertionError(f"no connection to port {port} reaches the machine")


def has_connection(process, port):
    children = psutil.Process(process.pid).children(recursive=True)
    return any(
        each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED
        for child in children
        for each in child.net_connections("tcp")
    )


@contextlib.contextmanager
def machine(*flags):
    """Processes of Ray as those of a machine with one processor; gives the one that started the others."""
    command = [pathlib.Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1", *flags]
    with subprocess.Popen([*command, "--disable-usage-stats"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("--block" in line for line in process.stdout)  # what it does from now on
            yield process
        finally:
            process.terminate()


def replica_processes(process):
    return [child for child in psutil.Process(process.pid).children(recursive=True) if is_replica(child)]


def is_replica(process):
    with contextlib.suppress(psutil.Error):  # it has just ended
        return "ServeReplica" in "".join(process.cmdline())
    return False


def ask_until(stop, predict, message, versions):
    while not stop.is_set():
        versions.append(predict(message, timeout=LONG).model_spec.version.value)


def wait_until(condition):
    end = time.monotonic() + LONG / 2
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
