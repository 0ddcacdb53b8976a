"""`python -m serving` as a process: how it starts, how it fails, how it ends."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
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
    """One line that says what was given and what would do; no traceback, no chatter."""
    assert answer.stderr == f"Failed to start server. Error: {error}\n"
    assert answer.stdout == ""
    assert answer.returncode == 2


def test_both_ports_off(plus_path):
    assert_start_up_fails(
        run("--port=0", f"--model_base_path={plus_path}"),
        "INVALID_ARGUMENT: Both --port and --rest_api_port are 0. Give at least one, for example --port=8500",
    )


def test_one_port_for_both(plus_path):
    assert_start_up_fails(
        run("--port=8500", "--rest_api_port=8500", f"--model_base_path={plus_path}"),
        "INVALID_ARGUMENT: --port and --rest_api_port are both 8500. Give them different numbers, for example "
        "--port=8500 --rest_api_port=8501",
    )


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_port_is_taken(flag, plus_path, free_port):
    with socket.create_server(("127.0.0.1", free_port)):
        assert_start_up_fails(
            run("--port=0", f"--{flag}={free_port}", f"--model_base_path={plus_path}"),
            f"UNAVAILABLE: Cannot listen on --{flag}={free_port} of 127.0.0.1: Address already in use. "
            "Stop what listens there, or give another port",
        )


def test_no_base_path():
    assert_start_up_fails(
        run(),
        "INVALID_ARGUMENT: --model_base_path is empty. Give the directory that holds the model's versions",
    )


def wanted(path):
    return f"Expected a SavedModel in a numbered directory, for example {path}/1/saved_model.pb"


def test_base_path_is_missing(tmp_path):
    missing = tmp_path / "missing"
    assert_start_up_fails(
        run(f"--model_base_path={missing}"),
        f"NOT_FOUND: --model_base_path={missing} does not exist. {wanted(missing)}",
    )


def test_base_path_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert_start_up_fails(
        run(f"--model_base_path={tmp_path}/file"),
        f"NOT_FOUND: --model_base_path={tmp_path}/file is not a directory. {wanted(tmp_path / 'file')}",
    )


def test_base_path_has_no_version(plus_path):
    version = plus_path / "1"
    assert_start_up_fails(
        run(f"--model_base_path={version}"),
        f"NOT_FOUND: --model_base_path={version} has no version in it. {wanted(version)}",
    )


def test_version_has_no_saved_model(tmp_path):
    (tmp_path / "1").mkdir()
    assert_start_up_fails(
        run(f"--model_base_path={tmp_path}"),
        f"NOT_FOUND: --model_base_path={tmp_path} has versions (1), but no saved_model.pb in any. {wanted(tmp_path)}",
    )


def test_model_that_fails_to_load(tmp_path, free_port):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"not a message")
    assert_start_up_fails(
        run(f"--port={free_port}", f"--model_base_path={tmp_path}"),
        f"DATA_LOSS: Version 1 under --model_base_path={tmp_path} failed to load: "
        "Can't parse <model_base_path>/1/saved_model.pb as binary proto",
    )


@pytest.mark.parametrize(
    ("flag", "error"),
    [
        ("--port=many", "--port=many does not parse; it takes a whole number"),
        ("--port=65536", "--port=65536 is out of range; it takes from 0 to 65535"),
        ("--enable_model_warmup=perhaps", "--enable_model_warmup=perhaps does not parse; it takes true or false"),
        ("--model_name", "--model_name needs a value, for example --model_name=default"),
    ],
    ids=["no-number", "no-port", "no-truth-value", "no-value"],
)
def test_flag_that_does_not_parse(flag, error):
    assert_start_up_fails(run(flag), f"INVALID_ARGUMENT: {error}")


def assert_port_is_free(port):
    socket.create_server(("127.0.0.1", port)).close()


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
    first, *rest = log.splitlines()
    assert first == "unknown argument: --colour=blue"
    assert re.fullmatch(r".* INFO Unloading servable version \{name: default version: 1\}", "\n".join(rest))
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


def test_termination_waits_for_the_request_in_flight(zoo_path, free_port):
    flags = ("--port=0", f"--rest_api_port={free_port}", f"--model_base_path={zoo_path}", "--model_name=zoo")
    with started(*flags) as process:
        process.stdout.readline()
        with request_in_flight(free_port, 400_000) as connection:
            process.terminate()
            assert b'{"outputs":400000}' in b"".join(iter(lambda: connection.recv(9999), b""))
        assert process.wait(timeout=20) == 0
    assert_port_is_free(free_port)


@pytest.mark.parametrize("delay", [0.15, 0.6, 2.0])
def test_interrupt_while_starting_is_quiet(delay, plus_path, free_port):
    with started(f"--port={free_port}", f"--model_base_path={plus_path}") as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=20)
    assert "Traceback" not in log
    assert process.returncode == 130


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
