"""`python -m serving` as a process: how it starts, how it fails, how it ends."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest

pytestmark = pytest.mark.xdist_group("serving-command")

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


def run(*flags):
    command = [sys.executable, "-m", "serving", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=ENVIRONMENT, check=False)


@contextlib.contextmanager
def started(*flags):
    command = [sys.executable, "-m", "serving", *map(str, flags)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def plus_path(tmp_path_factory, save_plus):
    base_path = tmp_path_factory.mktemp("plus")
    save_plus(base_path / "1", 1)
    return base_path


def assert_start_up_fails(answer, error):
    """One line on standard output, as tensorflow_model_server says it; no traceback."""
    assert answer.stdout == f"Failed to start server. Error: {error}\n"
    assert "Traceback" not in answer.stderr
    assert answer.returncode == 255


EXCLUDED = {
    "no-port": (
        ["--port=0", "--model_base_path=/models/m"],
        "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
    ),
    "no-model": ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
    "batching": (
        ["--model_base_path=/models/m", "--batching_parameters_file=/batching"],
        "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
    ),
    "precision": (
        ["--model_base_path=/models/m", "--mixed_precision=fp16"],
        "fp16 auto mixed precision is not supported. Valid option: bfloat16",
    ),
    "parallelism": (
        ["--model_base_path=/models/m"]
        + [f"--tensorflow_{kind}_parallelism=1" for kind in ("session", "intra_op", "inter_op")],
        "Either configure server_options.tensorflow_session_parallelism or "
        "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
        "separately. You cannot configure all.",
    ),
}


@pytest.mark.parametrize(("flags", "error"), EXCLUDED.values(), ids=EXCLUDED)
def test_flags_that_are_missing_or_exclude_one_another(flags, error):
    assert_start_up_fails(run(*flags), f"INVALID_ARGUMENT: {error}")


@pytest.mark.slow
def test_one_port_for_both_leaves_rest_out(plus_path, free_port):
    flags = (f"--port={free_port}", f"--rest_api_port={free_port}", f"--model_base_path={plus_path}")
    with started(*flags) as process:
        assert process.stdout.readline() == f"Running gRPC ModelServer at 127.0.0.1:{free_port} ...\n"
        process.terminate()
        rest, log = process.communicate(timeout=20)
    assert rest == ""
    assert "server_options.http_port cannot be same as grpc_port." in log


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_port_is_taken(flag, plus_path, free_port):
    with socket.create_server(("127.0.0.1", free_port)):
        assert_start_up_fails(
            run("--port=0", f"--{flag}={free_port}", f"--model_base_path={plus_path}"),
            f"UNAVAILABLE: Cannot listen on --{flag}={free_port} of 127.0.0.1: Address already in use. "
            "Stop what listens there, or give another port",
        )


def test_host_of_the_environment_is_no_address(monkeypatch, plus_path):
    monkeypatch.setitem(ENVIRONMENT, "SERVING_HOST", "256.0.0.1")
    answer = run("--port=1", f"--model_base_path={plus_path}")
    told = "INVALID_ARGUMENT: 256.0.0.1 is no address of this machine: "
    assert answer.stdout.startswith(f"Failed to start server. Error: {told}")
    assert answer.stdout.endswith(
        "Give --host, or SERVING_HOST in the environment, an address to listen on, such as 127.0.0.1, or 0.0.0.0 for "
        "all\n"
    )
    assert answer.returncode == 255


@pytest.mark.slow
def test_model_that_fails_to_load(tmp_path, free_port):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"not a message")
    assert_start_up_fails(
        run(f"--port={free_port}", f"--model_base_path={tmp_path}", "--max_num_load_retries=0"),
        "UNKNOWN: 1 servable(s) did not become available: {{{name: default version: 1} due to error: "
        "DATA_LOSS: Can't parse <model_base_path>/1/saved_model.pb as binary proto}, }",
    )


@pytest.mark.slow
def test_config_file_that_does_not_parse(tmp_path):
    path = tmp_path / "models.config"
    path.write_text("model_config_list { config { nam: 'm' } }")
    answer = run(f"--model_config_file={path}")
    assert_start_up_fails(answer, f"INVALID_ARGUMENT: Invalid protobuf file: '{path}'")
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:" in answer.stderr


@pytest.mark.slow
def test_ports_stay_closed_until_there_is_a_model(tmp_path, plus_path, free_port):
    base_path = tmp_path / "later"
    with started(f"--port={free_port}", f"--model_base_path={base_path}") as process:
        log = iter(process.stderr.readline, "")
        assert any(f"Could not find base path {base_path} for servable default" in line for line in log)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free_port))
        (tmp_path / "being-written").mkdir()
        shutil.copytree(plus_path / "1", tmp_path / "being-written" / "1")
        (tmp_path / "being-written").rename(base_path)
        assert process.stdout.readline() == f"Running gRPC ModelServer at 127.0.0.1:{free_port} ...\n"
        socket.create_connection(("127.0.0.1", free_port)).close()


@pytest.mark.parametrize(
    ("flag", "error"),
    [
        ("--port=many", "--port=many does not parse; it takes a whole number"),
        ("--port=65536", "--port=65536 is out of range; it takes from 0 to 65535"),
        ("--enable_model_warmup=perhaps", "--enable_model_warmup=perhaps does not parse; it takes true or false"),
        ("--auth_token_fil=/t", "unknown argument: --auth_token_fil=/t; did you mean --auth_token_file?"),
        ("--model_name", "--model_name needs a value, for example --model_name=default"),
    ],
    ids=["no-number", "no-port", "no-truth-value", "misspelt", "no-value"],
)
def test_flag_that_does_not_parse(flag, error):
    answer = run(flag)
    assert answer.stderr == f"{error}\n"
    assert answer.stdout.startswith("usage: python -m serving ")
    assert answer.returncode == 255


def assert_port_is_free(port):
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.slow
def test_interrupt_ends_the_server(plus_path, free_port):
    flags = ("--port=0", f"--rest_api_port={free_port}", f"--model_base_path={plus_path}", "--colour=blue")
    with started(*flags) as process:
        line = f"Exporting HTTP/REST API at:127.0.0.1:{free_port} ...\n"
        assert process.stdout.readline() == line
        url = f"http://127.0.0.1:{free_port}/v1/models/default:predict"
        answer = httpx.post(url, json={"instances": [1]}, trust_env=False)
        assert answer.json() == {"predictions": [2.0]}
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 130
    unknown, *events = log.splitlines()
    assert unknown == "unknown argument: --colour=blue"
    version = "servable version {name: default version: 1}"
    told = [f"Successfully loaded {version}", f"Quiescing {version}", f"Done unloading {version}"]
    assert [event.partition(" INFO ")[2] for event in events] == told
    assert_port_is_free(free_port)


@contextlib.contextmanager
def request_in_flight(port, count):
    body = f'{{"signature_name":"slow","inputs":{count}}}'
    head = f"POST /v1/models/zoo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=0.3) as connection:
        connection.sendall((head + body).encode())
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(30)
        yield connection


@pytest.mark.slow
def test_termination_waits_for_the_request_in_flight(zoo_path, free_port):
    flags = ("--port=0", f"--rest_api_port={free_port}", f"--model_base_path={zoo_path}", "--model_name=zoo")
    with started(*flags) as process:
        process.stdout.readline()
        with request_in_flight(free_port, 400_000) as connection:
            process.terminate()
            assert b'{"outputs":400000}' in b"".join(iter(lambda: connection.recv(9999), b""))
        assert process.wait(timeout=20) == 0
    assert_port_is_free(free_port)


def handles_sigterm(pid):
    """Whether a process has a handler for SIGTERM, which Python itself has not."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(caught, 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.slow
@pytest.mark.parametrize("work", [0, 0.4, 2.0])
def test_interrupt_while_starting_is_quiet(work, plus_path, free_port):
    with started(f"--port={free_port}", f"--model_base_path={plus_path}") as process:
        child = psutil.Process(process.pid)
        while not handles_sigterm(process.pid):
            time.sleep(0.01)
        start = child.cpu_times()
        while sum(child.cpu_times()[:2]) < sum(start[:2]) + work:  # seconds, however long they take
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=20)
    assert "Traceback" not in log
    assert process.returncode == 130


@pytest.mark.slow
def test_second_signal_ends_at_once(zoo_path, free_port):
    flags = ("--port=0", f"--rest_api_port={free_port}", f"--model_base_path={zoo_path}", "--model_name=zoo")
    with started(*flags) as process:
        process.stdout.readline()
        with request_in_flight(free_port, 10**9):
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=2) == 130


def test_help_names_every_flag():
    answer = run("--help")
    assert answer.returncode == 0
    assert "--port=8500\n      TCP port of the gRPC API; 0 turns it off.\n" in answer.stdout
    assert "--enable_model_warmup=true\n" in answer.stdout


def test_version_is_two_lines():
    answer = run("--version")
    assert answer.returncode == 0
    assert re.fullmatch(r"TensorFlow ModelServer: \S+ \(keras_prelu\)\nTensorFlow Library: 2\.\S+\n", answer.stdout)
