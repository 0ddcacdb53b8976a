"""`--engine=ray` before Ray starts: what it refuses. `make test-ray` runs the tests that start it."""

import dataclasses
import socket
import subprocess
import sys

import pytest

from serving.engines.ray import TABLE
from serving.options import Options

pytestmark = pytest.mark.xdist_group("serving-ray")

RAY = ("--engine=ray", "--host=0.0.0.0")
FOLDER = "--model_base_path=m"


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
