"""TensorFlow Serving itself, from PATH or by the environment variable TENSORFLOW_MODEL_SERVER."""

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from serving.engines import child_process
from serving.engines.table import Kind, Protects, Table, check
from serving.errors import Code, ServingError, invalid_argument
from serving.flags import CommandLine, Value
from serving.process import Interruptions, check_ports

NAME = "tensorflow_model_server"
PATHS = (
    "model_base_path",
    "model_config_file",
    "batching_parameters_file",
    "monitoring_config_file",
    "ssl_config_file",
    "tensorflow_session_config_file",
    "platform_config_file",
    "thread_pool_factory_config_file",
)
"""The flags that name a file or a folder which is read."""

_VARIABLE = "TENSORFLOW_MODEL_SERVER"
_ANY_ADDRESS = "0.0.0.0"

TABLE: Table = {
    **dict.fromkeys(("engine", "host"), Kind.ENGINE),
    **dict.fromkeys(
        ("port", "rest_api_port", "model_name", "xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled"),
        Kind.ALWAYS,
    ),
    **dict.fromkeys(
        (
            "grpc_socket_path",
            "model_base_path",
            "model_config_file",
            "model_config_file_poll_wait_seconds",
            "file_system_poll_wait_seconds",
            "allow_version_labels_for_unavailable_models",
            "max_num_load_retries",
            "load_retry_interval_micros",
            "num_load_threads",
            "num_unload_threads",
            "saved_model_tags",
            "enable_model_warmup",
            "num_request_iterations_for_warmup",
            "enable_signature_method_name_check",
            "tensorflow_session_parallelism",
            "tensorflow_intra_op_parallelism",
            "tensorflow_inter_op_parallelism",
            "tensorflow_session_config_file",
            "per_process_gpu_memory_fraction",
            "mixed_precision",
            "prefer_tflite_model",
            "num_tflite_pools",
            "num_tflite_interpreters_per_pool",
            "enable_batching",
            "batching_parameters_file",
            "enable_per_model_batching_parameters",
            "monitoring_config_file",
            "rest_api_timeout_in_ms",
            "rest_api_num_threads",
            "rest_api_enable_cors_support",
            "grpc_max_threads",
            "grpc_channel_arguments",
            "ssl_config_file",
            "enable_grpc_healthcheck_service",
            "enable_profiler",
            "enable_serialization_as_tensor_content",
        ),
        Kind.OWN,
    ),
    **dict.fromkeys(
        (
            "rest_api_opens_while_loading",
            "console",
            "access_log",
            "enable_tracing",
            "request_log_dir",
            "request_log_sampling_rate",
            "request_log_max_file_bytes",
            "request_log_max_file_seconds",
            "request_log_max_files",
            "enable_grpc_reflection",
            "shutdown_grace_seconds",
            "shutdown_delay_seconds",
            "ray_min_replicas",
            "ray_max_replicas",
            "ray_address",
        ),
        Kind.WITHOUT_EFFECT,
    ),
    "auth_token_file": Protects("", "answers everybody"),
    "rest_api_ssl_config_file": Protects("", "has no TLS for the REST API"),
    "enable_reload_config_request": Protects(True, "lets any client replace the models"),
    "allow_links_out_of_base_path": Protects(True, "follows all links"),
    "unload_first": Protects(False, "holds the old version until the new one is loaded"),
    "rest_api_max_body_bytes": Protects(0, "takes bodies of any size"),
    "grpc_max_message_bytes": Protects(2**31 - 1, "takes messages of up to 2 GiB"),
    "rest_api_max_connections": Protects(0, "takes any number of connections"),
    "rest_api_max_connections_per_address": Protects(0, "takes any number of connections"),
    "grpc_max_connections": Protects(0, "takes any number of connections"),
    "max_queued_requests": Protects(0, "lets any number of requests wait"),
    "max_queue_time_in_ms": Protects(0, "lets requests wait for any time"),
    "max_image_pixels": Protects(0, "decodes images of any size"),
}


def serve(command_line: CommandLine, interruptions: Interruptions) -> int:
    """Runs TensorFlow Serving until it ends. Returns its exit status. Raises ServingError if it cannot start."""
    options = command_line.options
    options.check()
    if options.host != _ANY_ADDRESS and (options.port or options.rest_api_port):
        raise invalid_argument(
            f"--host={options.host}: {NAME} listens on all addresses; give --host={_ANY_ADDRESS} if it may, or take "
            "--engine=docker, which keeps to the host"
        )
    flags = translate(command_line)
    check_ports(options)
    return child_process.run([_binary(), *as_arguments(flags)], options, interruptions, signal.SIGKILL)


def translate(command_line: CommandLine) -> dict[str, str]:
    """The flags of TensorFlow Serving, by name. Prints those that have no effect there.

    Raises ServingError for an option that protects, as TensorFlow Serving would not.
    """
    check(TABLE, command_line, "TensorFlow Serving")
    flags = dict(command_line.ignored)
    for name, kind in TABLE.items():
        if kind is Kind.ALWAYS or (kind is Kind.OWN and name in command_line.given):
            flags[name] = getattr(command_line.options, name)
    return {name: _text(name, value) for name, value in flags.items()}


def as_arguments(flags: Mapping[str, str]) -> list[str]:
    """The flags in the spelling that TensorFlow Serving takes."""
    return [f"--{name}={value}" for name, value in flags.items()]


def is_remote(path: str) -> bool:
    """Whether a path is in a file system that only TensorFlow Serving knows, such as gs:// or s3://."""
    return "://" in path


def _text(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if name.endswith("_poll_wait_seconds"):
        if value != int(value):
            raise invalid_argument(f"--{name}={value}: TensorFlow Serving takes whole seconds; give a whole number")
        return str(int(value))
    if name in PATHS and value and not is_remote(str(value)):
        return str(Path(str(value)).absolute())
    return str(value)


def _binary() -> str:
    named = os.environ.get(_VARIABLE, "")
    found = shutil.which(named or NAME)
    if found is not None:
        return found
    where = f"{_VARIABLE}={named} is no program that can be run" if named else f"{NAME} is not on PATH"
    raise ServingError(
        Code.NOT_FOUND,
        f"{where}; install TensorFlow Serving, set {_VARIABLE} to its path, or take --engine=docker or embedded",
    )
