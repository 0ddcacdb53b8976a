"""TensorFlow Serving run by `--engine`: how it starts, ends, fails, and what it is given."""

import dataclasses
import os
import pathlib
import shlex
import signal
import socket
import stat

import httpx
import psutil
import pytest

from serving.engines.tensorflow_model_server import TABLE, Kind, Protects
from serving.options import IGNORED, Options

pytestmark = pytest.mark.xdist_group("serving-command")

BINARY = ("--engine=tensorflow_model_server", "--host=0.0.0.0")
DOCKER = ("--engine=docker",)
XLA = ["--xla_cpu_compilation_enabled=true", "--xla_gpu_compilation_enabled=true"]
FLAGS_OF_TENSORFLOW_SERVING = {  # model_servers/main.cc
    "allow_version_labels_for_unavailable_models",
    "batching_parameters_file",
    "enable_batching",
    "enable_grpc_healthcheck_service",
    "enable_model_warmup",
    "enable_per_model_batching_parameters",
    "enable_profiler",
    "enable_serialization_as_tensor_content",
    "enable_signature_method_name_check",
    "file_system_poll_wait_seconds",
    "flush_filesystem_caches",
    "grpc_channel_arguments",
    "grpc_max_threads",
    "grpc_socket_path",
    "load_retry_interval_micros",
    "max_num_load_retries",
    "mixed_precision",
    "model_base_path",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "model_name",
    "monitoring_config_file",
    "num_load_threads",
    "num_request_iterations_for_warmup",
    "num_tflite_interpreters_per_pool",
    "num_tflite_pools",
    "num_unload_threads",
    "per_process_gpu_memory_fraction",
    "platform_config_file",
    "port",
    "prefer_tflite_model",
    "remove_unused_fields_from_bundle_metagraph",
    "rest_api_enable_cors_support",
    "rest_api_num_threads",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "saved_model_tags",
    "skip_initialize_tpu",
    "ssl_config_file",
    "tensorflow_inter_op_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_session_config_file",
    "tensorflow_session_parallelism",
    "thread_pool_factory_config_file",
    "use_alts_credentials",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
}
OF_EARLIER_RELEASES = {"num_tflite_interpreters", "use_saved_model", "use_tflite_model"}
both_engines = pytest.mark.parametrize("engine", [BINARY, DOCKER], ids=["binary", "docker"])


def test_every_option_has_an_entry():
    assert TABLE.keys() == {field.name for field in dataclasses.fields(Options)}


def test_options_that_are_passed_on_are_flags_of_tensorflow_serving():
    passed = {name for name, kind in TABLE.items() if kind in (Kind.ALWAYS, Kind.OWN)}
    assert passed | IGNORED.keys() == FLAGS_OF_TENSORFLOW_SERVING | OF_EARLIER_RELEASES


def test_binary_gets_its_flags(start, free_port, base_path):
    flags = (
        *("--rest_api_port", free_port, "--port=0", "--model_base_path=model", "--enable_batching"),
        *("--enable_model_warmup=false", "--file_system_poll_wait_seconds=2", "--per_process_gpu_memory_fraction=0.5"),
        *("--flush_filesystem_caches=false", "--max_image_pixels=0", "--colour=blue"),
    )
    with start(*BINARY, *flags) as started:
        called = started.called()["arguments"]
        started.wait_until_it_answers(free_port)
        started.process.terminate()
        output, errors = started.process.communicate(timeout=20)
    assert set(called) == {
        *(f"--rest_api_port={free_port}", "--port=0", f"--model_base_path={base_path}", "--enable_batching=true"),
        *("--enable_model_warmup=false", "--file_system_poll_wait_seconds=2", "--per_process_gpu_memory_fraction=0.5"),
        *("--flush_filesystem_caches=false", "--model_name=default", *XLA),
    }
    assert output == ""
    unknown, command = errors.splitlines()
    assert unknown == "unknown argument: --colour=blue"
    assert command.endswith(f"bin/tensorflow_model_server {shlex.join(called)}")


def test_binary_may_be_named_by_the_environment(start, free_port, base_path, path):
    (path / "tensorflow_model_server").rename(path / "another")
    flags = (f"--port={free_port}", f"--model_base_path={base_path}")
    with start(*BINARY, *flags, TENSORFLOW_MODEL_SERVER=str(path / "another")) as started:
        assert f"--port={free_port}" in started.called()["arguments"]


def test_docker_gets_ports_mounts_image_and_flags(start, free_port, base_path, tmp_path):
    (tmp_path / "batching, for all").write_text("")
    flags = (
        *(f"--port={free_port}", "--model_base_path=model", "--model_name=m"),
        *("--enable_batching", "--batching_parameters_file=batching, for all"),
    )
    with start(*DOCKER, *flags) as started:
        called = started.called()["arguments"]
        started.wait_until_it_answers(free_port, "m")
    batching = f"{tmp_path}/batching, for all"
    assert called[:8] == [
        *("run", "--rm", "--init", f"--publish=127.0.0.1:{free_port}:{free_port}"),
        f"--mount=type=bind,source={base_path},target={base_path},readonly",
        f'--mount=type=bind,"source={batching}","target={batching}",readonly',
        *("--entrypoint=tensorflow_model_server", "tensorflow/serving"),
    ]
    assert set(called[8:]) == {
        *(f"--port={free_port}", "--rest_api_port=0", f"--model_base_path={base_path}", "--model_name=m"),
        *("--enable_batching=true", f"--batching_parameters_file={batching}", *XLA),
    }


def test_docker_keeps_to_the_host_and_takes_the_image_of_the_environment(start, free_port, base_path):
    flags = (f"--rest_api_port={free_port}", "--port=0", f"--model_base_path={base_path}", "--host=localhost")
    with start(*DOCKER, *flags, TENSORFLOW_SERVING_IMAGE="mirror/serving:2.20.0") as started:
        called = started.called()["arguments"]
    assert [each for each in called if each.startswith("--publish")] == [f"--publish=127.0.0.1:{free_port}:{free_port}"]
    assert called[called.index("--entrypoint=tensorflow_model_server") + 1] == "mirror/serving:2.20.0"


def test_docker_mounts_the_models_of_a_config_file(start, free_port, tmp_path):
    (tmp_path / "a").mkdir()
    models = {"a": tmp_path / "a", "b": tmp_path / "a", "remote": "gs://bucket/model"}
    listed = (f'config {{ name: "{name}" base_path: "{path}" }}' for name, path in models.items())
    (tmp_path / "models").write_text(f"model_config_list {{ {' '.join(listed)} }}")
    with start(*DOCKER, f"--port={free_port}", "--model_config_file=models") as started:
        called = started.called()["arguments"]
    mounts = [each.split(",")[1] for each in called if each.startswith("--mount")]
    assert mounts == [f"source={tmp_path}/models", f"source={tmp_path}/a"]


PROTECTING = [name for name, kind in TABLE.items() if isinstance(kind, Protects)]


@pytest.mark.parametrize(
    ("engine", "name"),
    [*((BINARY, name) for name in PROTECTING), (DOCKER, "auth_token_file")],
    ids=[*PROTECTING, "docker"],
)
def test_option_that_protects_is_refused(answer, engine, name, base_path):
    value = {bool: str(not TABLE[name].unless).lower(), int: "7", str: "/file"}[type(TABLE[name].unless)]
    status, line, _ = answer(*engine, f"--model_base_path={base_path}", f"--{name}={value}")
    assert line == (
        f"INVALID_ARGUMENT: --{name}={value}: TensorFlow Serving {TABLE[name].instead}; leave the flag out, or take "
        "--engine=embedded"
    )
    assert status == 255


def test_limit_at_its_default_is_refused_if_it_is_given(answer, base_path):
    _, line, _ = answer(*BINARY, f"--model_base_path={base_path}", "--max_image_pixels=100000000")
    assert line.startswith("INVALID_ARGUMENT: --max_image_pixels=100000000: ")


@both_engines
def test_options_without_effect_are_passed_over_with_a_warning(start, engine, free_port, base_path):
    given = [name for name, kind in TABLE.items() if kind is Kind.WITHOUT_EFFECT]
    values = {name: str(getattr(Options, name)).lower() for name in given}
    flags = (f"--port={free_port}", f"--model_base_path={base_path}", *(f"--{each}={values[each]}" for each in given))
    with start(*engine, *flags) as started:
        called = started.called()["arguments"]
        started.process.kill()
        _, errors = started.process.communicate()
    assert errors.splitlines()[:-1] == [f"--{name} has no effect in TensorFlow Serving" for name in given]
    assert not {each.partition("=")[0] for each in called} & {f"--{name}" for name in given}


def test_binary_listens_everywhere_only_if_that_is_allowed(answer, base_path):
    _, line, _ = answer("--engine=tensorflow_model_server", f"--model_base_path={base_path}")
    assert line == (
        "INVALID_ARGUMENT: --host=127.0.0.1: tensorflow_model_server listens on all addresses; give --host=0.0.0.0 if "
        "it may, or take --engine=docker, which keeps to the host"
    )


def test_socket_alone_needs_no_host(start, base_path, tmp_path):
    flags = ("--port=0", f"--grpc_socket_path={tmp_path}/socket", f"--model_base_path={base_path}")
    with start("--engine=tensorflow_model_server", *flags) as started:
        assert f"--grpc_socket_path={tmp_path}/socket" in started.called()["arguments"]


FAILURES = {
    "no-model": (BINARY, "Both server_options.model_base_path and server_options.model_config_file are empty!"),
    "part-of-a-second": (
        (*BINARY, "--model_base_path=model", "--file_system_poll_wait_seconds=0.5"),
        "--file_system_poll_wait_seconds=0.5: TensorFlow Serving takes whole seconds; give a whole number",
    ),
    "socket-in-a-container": (
        (*DOCKER, "--model_base_path=model", "--grpc_socket_path=/s"),
        "--grpc_socket_path=/s: nobody reaches a socket in a container; leave the flag out, or take "
        "--engine=tensorflow_model_server",
    ),
}


@pytest.mark.parametrize(("flags", "reason"), FAILURES.values(), ids=FAILURES)
def test_flags_that_the_engine_cannot_follow(answer, flags, reason):
    status, line, _ = answer(*flags)
    assert (status, line) == (255, f"INVALID_ARGUMENT: {reason}")


def test_folder_that_docker_cannot_mount(answer, tmp_path):
    _, line, _ = answer(*DOCKER, "--model_base_path=none")
    assert line == f"NOT_FOUND: model_base_path: {tmp_path}/none is not there; docker mounts only what exists"


@both_engines
def test_port_is_taken(answer, engine, free_port, base_path):
    with socket.create_server(("127.0.0.1", free_port)):
        _, line, _ = answer(*engine, f"--rest_api_port={free_port}", "--port=0", f"--model_base_path={base_path}")
    assert line.startswith(f"UNAVAILABLE: Cannot listen on --rest_api_port={free_port} of ")


def test_binary_is_missing(answer, base_path, path):
    (path / "tensorflow_model_server").unlink()
    flags = (*BINARY, "--port=0", "--rest_api_port=1", f"--model_base_path={base_path}")
    advice = "install TensorFlow Serving, set TENSORFLOW_MODEL_SERVER to its path, or take --engine=docker or embedded"
    status, line, _ = answer(*flags)
    assert (status, line) == (255, f"NOT_FOUND: tensorflow_model_server is not on PATH; {advice}")


def test_docker_is_missing(answer, free_port, base_path, path):
    (path / "docker").unlink()
    status, line, _ = answer(*DOCKER, f"--port={free_port}", f"--model_base_path={base_path}")
    assert (status, line) == (
        255,
        "NOT_FOUND: docker is not on PATH; install it, or take --engine=tensorflow_model_server or embedded",
    )


def test_binary_may_not_be_executed(answer, free_port, base_path, tmp_path):
    (tmp_path / "server").write_text("#!/bin/sh\n")
    flags = (*BINARY, f"--port={free_port}", f"--model_base_path={base_path}")
    status, line, _ = answer(*flags, TENSORFLOW_MODEL_SERVER=str(tmp_path / "server"))
    assert status == 255
    assert line.startswith(f"NOT_FOUND: TENSORFLOW_MODEL_SERVER={tmp_path}/server is no program that can be run; ")


def test_binary_is_of_another_machine(answer, free_port, base_path, tmp_path):
    (tmp_path / "server").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "server").chmod(stat.S_IRWXU)
    flags = (*BINARY, f"--port={free_port}", f"--model_base_path={base_path}")
    status, line, _ = answer(*flags, TENSORFLOW_MODEL_SERVER=str(tmp_path / "server"))
    assert (status, line) == (255, f"FAILED_PRECONDITION: Cannot run {tmp_path}/server: Exec format error")


@pytest.mark.parametrize(
    ("ends", "told"), [(0, 0), (125, 125), (-signal.SIGILL, 132)], ids=["well", "failed", "illegal"]
)
@both_engines
def test_server_ends_at_once(answer, engine, ends, told, free_port, base_path, path):
    flags = (*engine, f"--port={free_port}", f"--model_base_path={base_path}")
    status, line, _ = answer(*flags, STAND_IN_ENDS=str(ends))
    name = path / ("docker" if engine is DOCKER else "tensorflow_model_server")
    assert (status, line) == (255, f"UNAVAILABLE: {name} ended by itself with status {told}")


def test_server_that_has_said_why_it_fails_is_not_repeated(start, free_port, base_path):
    flags = (*BINARY, f"--port={free_port}", f"--model_base_path={base_path}")
    with start(*flags, STAND_IN_ENDS="255") as started:
        output, errors = started.process.communicate(timeout=20)
    assert (started.process.returncode, output) == (255, "")
    assert len(errors.splitlines()) == 1


def test_server_that_ends_later_gives_its_status(start, free_port, base_path, path, tmp_path):
    flags = (*BINARY, f"--port={free_port}", f"--model_base_path={base_path}")
    address = str(tmp_path / "systemd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(60)
        systemd.bind(address)
        with start(*flags, NOTIFY_SOCKET=address) as started:
            assert systemd.recv(1000) == b"READY=1\nSTATUS=Serving"
            httpx.get(f"http://127.0.0.1:{free_port}/end", trust_env=False)
            output, errors = started.process.communicate(timeout=60)
    assert (started.process.returncode, output) == (3, "")
    assert errors.splitlines()[1:] == [f"{path}/tensorflow_model_server ended by itself with status 3"]


@both_engines
@pytest.mark.parametrize(
    ("number", "environment", "status"),
    [
        (signal.SIGTERM, {}, 143),
        (signal.SIGTERM, {"STAND_IN_STATUS": "7"}, 7),
        (signal.SIGTERM, {"STAND_IN_STATUS": "0"}, 0),
        (signal.SIGINT, {}, 130),
    ],
    ids=["unhandled", "status", "well", "interrupt"],
)
def test_signal_and_status_pass_through(start, engine, number, environment, status, free_port, base_path):
    flags = (f"--rest_api_port={free_port}", "--port=0", f"--model_base_path={base_path}")
    with start(*engine, *flags, **environment) as started:
        started.wait_until_it_answers(free_port)
        started.process.send_signal(number)
        output, errors = started.process.communicate(timeout=20)
    assert (started.process.returncode, output) == (status, "")
    assert len(errors.splitlines()) == 1, "one line with the command"


@both_engines
def test_server_ends_with_the_process_that_runs_it(start, engine, free_port, base_path):
    flags = (f"--rest_api_port={free_port}", "--port=0", f"--model_base_path={base_path}")
    with start(*engine, *flags) as started:
        started.wait_until_it_answers(free_port)
        child = psutil.Process(started.called()["pid"])
        assert os.getpgid(child.pid) == child.pid, "Ctrl-C would reach it twice"
        started.process.kill()
        psutil.wait_procs([child], timeout=20)
        assert not child.is_running()


@both_engines
def test_tensorflow_is_not_imported(start, engine, free_port, base_path):
    with start(*engine, f"--port={free_port}", f"--model_base_path={base_path}") as started:
        started.called()
        times = psutil.Process(started.process.pid).cpu_times()
        maps = pathlib.Path(f"/proc/{started.process.pid}/maps").read_text()
    assert "tensorflow" not in maps
    assert times.user + times.system < 0.5  # seconds


def test_engine_that_does_not_exist(start):
    with start("--engine=triton") as started:
        _, errors = started.process.communicate(timeout=20)
    assert started.process.returncode == 255
    assert errors == "--engine=triton is no engine; it takes embedded, ray, tensorflow_model_server, docker\n"
