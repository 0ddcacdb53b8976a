"""The command line, parsed."""

import dataclasses
import os
import sys

import pytest

from serving.flags import FlagError, parse, warn_of_ignored
from serving.options import IGNORED, Options
from serving.usage import usage

SPELLINGS = {
    "equals": (["--port=1"], {"port": 1}),
    "next-argument": (["--port", "1", "--model_name", "m"], {"port": 1, "model_name": "m"}),
    "empty-text": (["--saved_model_tags="], {"saved_model_tags": ""}),
    "text-with-equals": (["--model_base_path=/a=b"], {"model_base_path": "/a=b"}),
    "bare-boolean": (["--enable_model_warmup", "--port=1"], {"enable_model_warmup": True, "port": 1}),
    "boolean-equals": (["--enable_model_warmup=FALSE"], {"enable_model_warmup": False}),
    "boolean-next-argument": (["--enable_model_warmup", "false"], {"enable_model_warmup": False}),
    "negative-number": (["--file_system_poll_wait_seconds", "-1"], {"file_system_poll_wait_seconds": -1.0}),
    "last-one-wins": (["--port=1", "--port=2"], {"port": 2}),
}


@pytest.mark.parametrize(("arguments", "values"), SPELLINGS.values(), ids=SPELLINGS)
def test_spelling(arguments, values):
    command_line = parse(arguments)
    assert command_line.options == Options(**values)
    assert command_line.unknown == []


def test_flags_that_are_given_are_known_even_if_they_change_nothing():
    assert parse(["--port=8500", "--use_saved_model"]).given == {"port"}


def test_unknown_arguments_are_kept_apart():
    command_line = parse(["--colour=blue", "stray", "-v=1", "--port=2", "--logtostderr"])
    assert command_line.unknown == ["--colour=blue", "stray", "-v=1", "--logtostderr"]
    assert command_line.options.port == 2


HOSTS = {
    "variable": ("0.0.0.0", [], "0.0.0.0"),
    "flag-goes-before-it": ("0.0.0.0", ["--host=127.0.0.2"], "127.0.0.2"),
    "empty-variable": ("", [], "127.0.0.1"),
}


@pytest.mark.parametrize(("variable", "arguments", "host"), HOSTS.values(), ids=HOSTS)
def test_environment_may_name_the_host(monkeypatch, variable, arguments, host):
    monkeypatch.setenv("SERVING_HOST", variable)
    assert parse(arguments).options.host == host


MISSPELT = {
    "missing-letter": (["--auth_token_fil=/tokens.json"], "auth_token_file"),
    "value-apart": (["--auth_tokn_file", "/tokens.json"], "auth_token_file"),
    "plural": (["--auth_tokens_file=/tokens.json"], "auth_token_file"),
    "dashes": (["--auth-token-file=/tokens.json"], "auth_token_file"),
    "capitals": (["--AUTH_TOKEN_FILE=/tokens.json"], "auth_token_file"),
    "one-dash": (["-auth_token_file=/tokens.json"], "auth_token_file"),
    "no-dash": (["--port=2", "auth_token_file=/tokens.json"], "auth_token_file"),
    "shorter": (["--ssl_config=/ssl.config"], "ssl_config_file"),
    "shortest": (["--prot=1"], "port"),
}


@pytest.mark.parametrize(("arguments", "meant"), MISSPELT.values(), ids=MISSPELT)
def test_flag_that_is_misspelt_is_refused(arguments, meant):
    with pytest.raises(FlagError) as caught:
        parse(arguments)
    misspelt = next(each for each in arguments if not each.startswith("--port"))
    assert str(caught.value) == f"unknown argument: {misspelt}; did you mean --{meant}?"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Options)])
def test_no_flag_of_ours_is_passed_over_for_a_typing_error(name):
    typed = {name[:at] + name[at + 1 :] for at in range(len(name))}
    typed |= {name[:at] + "x" + name[at:] for at in range(len(name) + 1)}
    typed |= {name[:at] + "x" + name[at + 1 :] for at in range(len(name))}
    typed |= {name[:at] + name[at : at + 2][::-1] + name[at + 2 :] for at in range(len(name))}
    if len(name) > 8:
        typed |= {name[: at - 4] + name[at - 3 : at] + name[at + 1 :] for at in range(4, len(name))}
    typed |= {name.replace("_", ""), name.replace("_", "__"), name.replace("_", "-")}
    for each in typed - {name}:
        with pytest.raises(FlagError, match="did you mean --"):
            parse([f"--{each}=1"])


@pytest.mark.parametrize(
    "argument",
    [
        "--port=-1",
        "--port=",
        "--port=1.5",
        "--grpc_max_threads=0",
        "--max_num_load_retries=-1",
        "--per_process_gpu_memory_fraction=half",
        "--per_process_gpu_memory_fraction=1.1",
        "--per_process_gpu_memory_fraction=nan",
    ],
)
def test_value_that_does_not_fit_is_refused(argument):
    with pytest.raises(FlagError) as caught:
        parse([argument])
    assert str(caught.value).startswith(f"{argument} ")


def test_flag_without_effect_is_taken_and_told(capsys):
    command_line = parse(["--flush_filesystem_caches=false", "--platform_config_file", "x", "--port=2"])
    assert command_line.options == Options(port=2)
    assert command_line.ignored == {"flush_filesystem_caches": False, "platform_config_file": "x"}
    warn_of_ignored(command_line)
    assert capsys.readouterr().err == (
        "--flush_filesystem_caches has no effect in this server\n--platform_config_file has no effect in this server\n"
    )


FLAGS_WITHOUT_EFFECT = {
    "flush_filesystem_caches",
    "num_tflite_interpreters",
    "platform_config_file",
    "remove_unused_fields_from_bundle_metagraph",
    "skip_initialize_tpu",
    "thread_pool_factory_config_file",
    "use_alts_credentials",
    "use_saved_model",
    "use_tflite_model",
}


def test_every_flag_of_tensorflow_serving_is_taken():
    assert set(IGNORED) == FLAGS_WITHOUT_EFFECT
    command_line = parse([f"--{name}=1" for name in sorted(FLAGS_WITHOUT_EFFECT)])
    assert command_line.unknown == []
    assert command_line.ignored.keys() == FLAGS_WITHOUT_EFFECT


def test_flag_without_effect_must_parse():
    with pytest.raises(FlagError, match="--num_tflite_interpreters=half does not parse; it takes a whole number"):
        parse(["--num_tflite_interpreters=half"])


def test_every_flag_is_in_the_usage_and_those_of_tensorflow_serving_come_first():
    theirs, own = usage().split("Flags of this server's own")
    names = {*DEFAULTS, "xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled"}  # which have another default here
    for field in dataclasses.fields(Options):
        assert f"\n  --{field.name}=" in (theirs if field.name in names else own), field.name


def test_flags_are_bold_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033" not in usage()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "  \033[1m--port\033[0m=8500\n" in usage()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in usage()


DEFAULTS = {  # model_servers/server.h and main.cc
    "port": 8500,
    "grpc_socket_path": "",
    "rest_api_port": 0,
    "model_name": "default",
    "model_base_path": "",
    "model_config_file": "",
    "model_config_file_poll_wait_seconds": 0,
    "file_system_poll_wait_seconds": 1,
    "allow_version_labels_for_unavailable_models": False,
    "max_num_load_retries": 5,
    "load_retry_interval_micros": 60 * 1000 * 1000,
    "num_load_threads": 0,
    "num_unload_threads": 0,
    "saved_model_tags": "serve",
    "enable_model_warmup": True,
    "num_request_iterations_for_warmup": 0,
    "enable_signature_method_name_check": False,
    "tensorflow_session_parallelism": 0,
    "tensorflow_intra_op_parallelism": 0,
    "tensorflow_inter_op_parallelism": 0,
    "tensorflow_session_config_file": "",
    "per_process_gpu_memory_fraction": 0,
    "mixed_precision": "",
    "prefer_tflite_model": False,
    "num_tflite_pools": os.cpu_count(),
    "num_tflite_interpreters_per_pool": 1,
    "enable_batching": False,
    "batching_parameters_file": "",
    "enable_per_model_batching_parameters": False,
    "monitoring_config_file": "",
    "rest_api_timeout_in_ms": 30000,
    "rest_api_num_threads": 4 * os.cpu_count(),
    "rest_api_enable_cors_support": False,
    "grpc_max_threads": 4 * os.cpu_count(),
    "grpc_channel_arguments": "",
    "ssl_config_file": "",
    "enable_grpc_healthcheck_service": False,
    "enable_profiler": True,
    "enable_serialization_as_tensor_content": False,
}
OUR_OWN = {
    "xla_cpu_compilation_enabled": True,
    "xla_gpu_compilation_enabled": True,
    "engine": "embedded",
    "ray_min_replicas": 1,
    "ray_max_replicas": 0,
    "ray_address": "",
    "host": "127.0.0.1",
    "console": True,
    "enable_grpc_reflection": True,
    "enable_reload_config_request": True,
    "rest_api_ssl_config_file": "",
    "access_log": "",
    "enable_tracing": False,
    "request_log_dir": "",
    "request_log_sampling_rate": 0.01,
    "request_log_max_file_bytes": 64 * 1024 * 1024,
    "request_log_max_file_seconds": 3600,
    "request_log_max_files": 10,
    "auth_token_file": "",
    "rest_api_max_body_bytes": 512 * 1024 * 1024,
    "rest_api_max_connections": 0,
    "rest_api_max_connections_per_address": 0,
    "grpc_max_message_bytes": 2**31 - 1,
    "grpc_max_connections": 0,
    "max_queued_requests": 0,
    "max_queue_time_in_ms": 0,
    "max_image_pixels": 100_000_000,
    "allow_links_out_of_base_path": False,
    "rest_api_opens_while_loading": False,
    "shutdown_delay_seconds": 0,
    "shutdown_grace_seconds": 10,
    "unload_first": False,
}


def test_defaults_are_those_of_tensorflow_serving():
    assert dataclasses.asdict(Options()) == DEFAULTS | OUR_OWN
