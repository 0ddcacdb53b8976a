"""The options of the server: the flags of tensorflow_model_server, with its defaults, and some more."""

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import TypeVar

from serving.errors import invalid_argument

T = TypeVar("T")

_NUM_CPUS = os.cpu_count() or 1
_MOST_THREADS = 10_000

ENGINES = ("embedded", "ray", "tensorflow_model_server", "docker")
"""The programs that serve: each is a module of `serving.engines`."""

HOST_VARIABLE = "SERVING_HOST"
"""The variable of the environment that stands for --host where the command line has none."""

IGNORED: dict[str, type] = {
    "flush_filesystem_caches": bool,
    "remove_unused_fields_from_bundle_metagraph": bool,
    "thread_pool_factory_config_file": str,
    "platform_config_file": str,
    "use_alts_credentials": bool,
    "skip_initialize_tpu": bool,
    # of earlier releases
    "num_tflite_interpreters": int,
    "use_saved_model": bool,
    "use_tflite_model": bool,
}
"""Flags of tensorflow_model_server that have no effect in this server, with the types of their values."""


def _flag(default: T, meaning: str, least: float = -math.inf, most: float = math.inf) -> T:
    return dataclasses.field(default=default, metadata={"meaning": meaning, "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class Options:
    """A server's options, one per flag of the command line."""

    engine: str = _flag(ENGINES[0], f"Program that serves: {', '.join(ENGINES)}.")
    port: int = _flag(8500, "TCP port of the gRPC API; 0 turns it off.", 0, 65535)
    grpc_socket_path: str = _flag("", "UNIX socket on which the gRPC API listens too.")
    rest_api_port: int = _flag(0, "TCP port of the REST API; 0 turns it off.", 0, 65535)
    host: str = _flag(
        "127.0.0.1",
        f"Address to listen on; 0.0.0.0 lets other machines in. Without it {HOST_VARIABLE} in the environment counts.",
    )

    ray_min_replicas: int = _flag(1, "Processes that hold the models under --engine=ray, at least.", 1)
    ray_max_replicas: int = _flag(0, "The same, at most, as more requests are in flight; 0 for no more than that.", 0)
    ray_address: str = _flag("", "Address of a Ray cluster to serve in; without it Ray runs on this machine alone.")

    model_name: str = _flag("default", "Name under which clients ask for the model.")
    model_base_path: str = _flag(
        "", "Directory with a numbered subdirectory for each version of the model, or with one SavedModel itself."
    )
    model_config_file: str = _flag("", "Text file with a ModelServerConfig, in place of --model_name.")
    model_config_file_poll_wait_seconds: float = _flag(0, "Seconds between looks at that file; 0 looks once.")
    file_system_poll_wait_seconds: float = _flag(
        1, "Seconds between looks for new versions; 0 looks once, a negative number never."
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "Whether a label that is not in use may stand for a version that is not available yet."
    )
    max_num_load_retries: int = _flag(5, "How often a version that failed to load is tried again.", 0)
    load_retry_interval_micros: int = _flag(60_000_000, "Microseconds before it is tried again.")
    num_load_threads: int = _flag(0, "Versions that are loaded at once after the start; 0 stands for 1.", 0)
    unload_first: bool = _flag(
        False, "Whether a version goes before the one that replaces it is loaded: for models too big to hold twice."
    )
    num_unload_threads: int = _flag(0, "Versions that are unloaded at once; 0 stands for 1.", 0)
    allow_links_out_of_base_path: bool = _flag(
        False, "Whether a version may be, or hold, a link to what lies outside of its model's base path."
    )
    saved_model_tags: str = _flag("serve", "Tags, with commas between, of the graph to load.")
    enable_model_warmup: bool = _flag(True, "Whether to replay a version's warm-up requests before it serves.")
    num_request_iterations_for_warmup: int = _flag(0, "How often each is replayed; 0 stands for 1.")
    enable_signature_method_name_check: bool = _flag(
        False, "Whether Classify and Regress refuse signatures that were exported for another method."
    )

    tensorflow_session_parallelism: int = _flag(0, "Threads of a session; 0 leaves it to TensorFlow.", 0)
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads of one operation; 0 leaves it to TensorFlow.", 0)
    tensorflow_inter_op_parallelism: int = _flag(0, "Operations run at once; 0 leaves it to TensorFlow.", 0)
    tensorflow_session_config_file: str = _flag("", "Text file with TensorFlow's ConfigProto.")
    per_process_gpu_memory_fraction: float = _flag(
        0, "Share of a GPU's memory that the server takes, from 0 to 1; 0 leaves it to TensorFlow.", 0, 1
    )
    mixed_precision: str = _flag(
        "", "bfloat16 computes in that type, by oneDNN, where TensorFlow deems it precise enough."
    )
    xla_cpu_compilation_enabled: bool = _flag(
        True,
        "Whether XLA may compile functions that were exported with jit_compile; both flags must be false to forbid it.",
    )
    xla_gpu_compilation_enabled: bool = _flag(True, "The same.")
    prefer_tflite_model: bool = _flag(False, "Whether to run model.tflite where a version's directory has one.")
    num_tflite_pools: int = _flag(_NUM_CPUS, "Pools of interpreters of a TFLite model.", 1)
    num_tflite_interpreters_per_pool: int = _flag(1, "Interpreters of a pool: runs at once are their product.", 1)

    enable_batching: bool = _flag(False, "Whether to run the requests of several clients together.")
    batching_parameters_file: str = _flag("", "Text file with BatchingParameters.")
    enable_per_model_batching_parameters: bool = _flag(
        False, "Whether a version's own batching_params.pbtxt says how it is batched, if at all."
    )
    monitoring_config_file: str = _flag("", "Text file with a MonitoringConfig.")

    rest_api_timeout_in_ms: int = _flag(30000, "Time that a REST request may take to run.", 1)
    rest_api_num_threads: int = _flag(4 * _NUM_CPUS, "Threads that answer REST requests.", 1, _MOST_THREADS)
    rest_api_opens_while_loading: bool = _flag(
        False, "Whether the REST API listens before there are models, for probes of /healthz and /readyz."
    )
    console: bool = _flag(True, "Whether the REST API has the console, a page to ask and watch the models, at /.")
    rest_api_enable_cors_support: bool = _flag(False, "Whether pages of other origins may use the REST API.")
    grpc_max_threads: int = _flag(4 * _NUM_CPUS, "Threads that answer gRPC requests.", 1, _MOST_THREADS)
    grpc_channel_arguments: str = _flag("", "Arguments of gRPC, key=value with commas between.")
    ssl_config_file: str = _flag("", "Text file with an SSLConfig, for the gRPC API.")
    rest_api_ssl_config_file: str = _flag("", "Text file with an SSLConfig, for the REST API.")
    rest_api_max_body_bytes: int = _flag(512 * 1024 * 1024, "Bytes that the body of a REST request may have.", 1)
    rest_api_max_connections: int = _flag(0, "Connections to the REST API at a time; 0 for any number.", 0)
    rest_api_max_connections_per_address: int = _flag(0, "The same, of one client's address.", 0)
    grpc_max_message_bytes: int = _flag(2**31 - 1, "Bytes that a message over gRPC may have.", 1, 2**31 - 1)
    grpc_max_connections: int = _flag(0, "Connections to the gRPC API at a time; 0 for any number.", 0)
    max_queued_requests: int = _flag(0, "Requests of each API that may wait for a thread; 0 for any number.", 0)
    max_queue_time_in_ms: int = _flag(0, "Time after which a request that waits is refused; 0 for any time.", 0)
    max_image_pixels: int = _flag(
        100_000_000, "Pixels that an encoded image may have, by its own header; 0 for any number.", 0
    )
    access_log: str = _flag("", "File for a line of JSON for each request; - stands for standard output.")
    enable_tracing: bool = _flag(
        False,
        "Whether requests leave spans for OpenTelemetry, which the variables OTEL_* of the environment configure.",
    )
    request_log_dir: str = _flag("", "Directory for a sample of requests with their answers, as PredictionLogs.")
    request_log_sampling_rate: float = _flag(0.01, "Share of the requests that it holds, from 0 to 1.", 0, 1)
    request_log_max_file_bytes: int = _flag(64 * 1024 * 1024, "Bytes after which another of its files is begun.", 1)
    request_log_max_file_seconds: float = _flag(3600, "Seconds after which another of its files is begun.", 0)
    request_log_max_files: int = _flag(10, "Files of a model that it keeps; 0 for any number.", 0)
    auth_token_file: str = _flag("", "JSON file with the tokens that clients must have, and what each is for.")
    enable_grpc_healthcheck_service: bool = _flag(False, "Whether to answer grpc.health.v1.Health.")
    enable_grpc_reflection: bool = _flag(True, "Whether gRPC clients may list the services.")
    enable_reload_config_request: bool = _flag(True, "Whether HandleReloadConfigRequest may replace the models.")
    enable_profiler: bool = _flag(True, "Whether to answer TensorFlow's ProfilerService, which writes traces.")
    shutdown_grace_seconds: float = _flag(10, "Seconds that requests in flight have when the server is to end.", 0)
    shutdown_delay_seconds: float = _flag(
        0, "Seconds before that, in which it answers all requests but says that it is not ready.", 0
    )
    enable_serialization_as_tensor_content: bool = _flag(
        False, "Whether gRPC answers hold tensor_content in place of float_val and its like."
    )

    def check(self) -> None:
        """Raises ServingError, in TensorFlow Serving's words, if options are missing or exclude one another."""
        if not self.port and not self.grpc_socket_path and not self.rest_api_port:
            raise invalid_argument(
                "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
            )
        if not self.model_base_path and not self.model_config_file:
            raise invalid_argument(
                "Both server_options.model_base_path and server_options.model_config_file are empty!"
            )
        if self.batching_parameters_file and not self.enable_batching:
            raise invalid_argument(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )
        session, operation = self.tensorflow_session_parallelism, self.tensorflow_intra_op_parallelism
        if session and operation and self.tensorflow_inter_op_parallelism:
            raise invalid_argument(
                "Either configure server_options.tensorflow_session_parallelism or "
                "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
                "separately. You cannot configure all."
            )
        if self.mixed_precision not in ("", "bfloat16"):
            raise invalid_argument(
                f"{self.mixed_precision} auto mixed precision is not supported. Valid option: bfloat16"
            )
