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
    grpc_socket_path: str = _flag("", "UNIX socket for the gRPC API, beside the port.")
    rest_api_port: int = _flag(0, "TCP port of the REST API; 0 turns it off.", 0, 65535)
    host: str = _flag(
        "127.0.0.1",
        f"Address to listen on; 0.0.0.0 admits other machines. {HOST_VARIABLE} in the environment sets the default.",
    )

    ray_min_replicas: int = _flag(1, "Smallest number of replicas under --engine=ray; each holds all models.", 1)
    ray_max_replicas: int = _flag(0, "Largest number of replicas, started as load grows; 0: --ray_min_replicas.", 0)
    ray_address: str = _flag("", "Address of the Ray cluster to serve in; default: Ray on this machine alone.")

    model_name: str = _flag("default", "Name by which clients request the model.")
    model_base_path: str = _flag(
        "", "Directory with a numbered subdirectory per version of the model, or with one SavedModel itself."
    )
    model_config_file: str = _flag(
        "", "Text file with a ModelServerConfig, instead of --model_name and --model_base_path."
    )
    model_config_file_poll_wait_seconds: float = _flag(
        0, "Seconds between two reads of --model_config_file; 0: read once."
    )
    file_system_poll_wait_seconds: float = _flag(
        1, "Seconds between two searches for new versions; 0: search once; negative: never search."
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "Let a new label name a version that is not available yet."
    )
    max_num_load_retries: int = _flag(5, "Number of times to retry a version that failed to load.", 0)
    load_retry_interval_micros: int = _flag(60_000_000, "Microseconds between two of these retries.")
    num_load_threads: int = _flag(0, "Number of versions that load at once after the start; 0: 1.", 0)
    unload_first: bool = _flag(
        False, "Unload a version before its successor loads, for models too large to hold twice."
    )
    num_unload_threads: int = _flag(0, "Number of versions that unload at once; 0: 1.", 0)
    allow_links_out_of_base_path: bool = _flag(
        False, "Follow links of a version that lead out of the model's base path."
    )
    saved_model_tags: str = _flag("serve", "Comma-separated tags of the graph to load.")
    enable_model_warmup: bool = _flag(True, "Replay a version's warm-up requests before it serves.")
    num_request_iterations_for_warmup: int = _flag(0, "Number of times to replay each warm-up request; 0: 1.")
    enable_signature_method_name_check: bool = _flag(
        False, "Refuse Classify and Regress on signatures that were exported for another method."
    )

    tensorflow_session_parallelism: int = _flag(0, "Threads of a session; 0: TensorFlow decides.", 0)
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads of one operation; 0: TensorFlow decides.", 0)
    tensorflow_inter_op_parallelism: int = _flag(0, "Operations that run at once; 0: TensorFlow decides.", 0)
    tensorflow_session_config_file: str = _flag("", "Text file with TensorFlow's ConfigProto.")
    per_process_gpu_memory_fraction: float = _flag(
        0, "Share of a GPU's memory for the server, from 0 to 1; 0: TensorFlow decides.", 0, 1
    )
    mixed_precision: str = _flag(
        "", "bfloat16: compute in that type, by oneDNN, where TensorFlow considers it precise enough."
    )
    xla_cpu_compilation_enabled: bool = _flag(
        True,
        "Let XLA compile functions that were exported with jit_compile. Only both flags together forbid it.",
    )
    xla_gpu_compilation_enabled: bool = _flag(True, "As --xla_cpu_compilation_enabled.")
    prefer_tflite_model: bool = _flag(False, "Run model.tflite if a version's directory has one.")
    num_tflite_pools: int = _flag(_NUM_CPUS, "Pools of interpreters of a TFLite model.", 1)
    num_tflite_interpreters_per_pool: int = _flag(
        1, "Interpreters per pool; pools times interpreters requests run at once.", 1
    )

    enable_batching: bool = _flag(False, "Run the requests of several clients together.")
    batching_parameters_file: str = _flag("", "Text file with BatchingParameters.")
    enable_per_model_batching_parameters: bool = _flag(
        False, "Batch a version by its own batching_params.pbtxt, and not at all without one."
    )
    monitoring_config_file: str = _flag("", "Text file with a MonitoringConfig.")

    rest_api_timeout_in_ms: int = _flag(30000, "Milliseconds that a REST request may run.", 1)
    rest_api_num_threads: int = _flag(4 * _NUM_CPUS, "Threads that answer REST requests.", 1, _MOST_THREADS)
    rest_api_opens_while_loading: bool = _flag(
        False, "Open the REST API before the models are loaded, for probes of /healthz and /readyz."
    )
    console: bool = _flag(True, "Serve the console at / of the REST API: a page to query and watch the models.")
    rest_api_enable_cors_support: bool = _flag(False, "Let pages of other origins use the REST API.")
    grpc_max_threads: int = _flag(4 * _NUM_CPUS, "Threads that answer gRPC requests.", 1, _MOST_THREADS)
    grpc_channel_arguments: str = _flag("", "Comma-separated key=value arguments of gRPC.")
    ssl_config_file: str = _flag("", "Text file with an SSLConfig for the gRPC API.")
    rest_api_ssl_config_file: str = _flag("", "Text file with an SSLConfig for the REST API.")
    rest_api_max_body_bytes: int = _flag(512 * 1024 * 1024, "Largest body of a REST request, in bytes.", 1)
    rest_api_max_connections: int = _flag(0, "Largest number of connections to the REST API; 0: no limit.", 0)
    rest_api_max_connections_per_address: int = _flag(
        0, "Largest number of connections to the REST API per client address; 0: no limit.", 0
    )
    grpc_max_message_bytes: int = _flag(2**31 - 1, "Largest gRPC message, in bytes.", 1, 2**31 - 1)
    grpc_max_connections: int = _flag(0, "Largest number of connections to the gRPC API; 0: no limit.", 0)
    max_queued_requests: int = _flag(0, "Largest number of requests per API that wait for a thread; 0: no limit.", 0)
    max_queue_time_in_ms: int = _flag(0, "Milliseconds after which a waiting request is refused; 0: no limit.", 0)
    max_image_pixels: int = _flag(
        100_000_000, "Largest number of pixels of an encoded image, by its header; 0: no limit.", 0
    )
    access_log: str = _flag("", "File for one line of JSON per request; -: standard output.")
    enable_tracing: bool = _flag(
        False,
        "Export spans by OpenTelemetry, as the OTEL_* environment variables configure it.",
    )
    request_log_dir: str = _flag("", "Directory for a sample of requests and answers, as PredictionLogs.")
    request_log_sampling_rate: float = _flag(0.01, "Share of the requests in the request log, from 0 to 1.", 0, 1)
    request_log_max_file_bytes: int = _flag(
        64 * 1024 * 1024, "Bytes after which the request log begins another file.", 1
    )
    request_log_max_file_seconds: float = _flag(3600, "Seconds after which the request log begins another file.", 0)
    request_log_max_files: int = _flag(10, "Number of newest files of the request log to keep per model; 0: all.", 0)
    auth_token_file: str = _flag("", "JSON file with the tokens that clients must send, and what each permits.")
    enable_grpc_healthcheck_service: bool = _flag(False, "Answer grpc.health.v1.Health.")
    enable_grpc_reflection: bool = _flag(True, "Let gRPC clients list the services.")
    enable_reload_config_request: bool = _flag(True, "Let HandleReloadConfigRequest replace the models.")
    enable_profiler: bool = _flag(True, "Answer TensorFlow's ProfilerService, which writes traces.")
    shutdown_grace_seconds: float = _flag(10, "Seconds for requests in flight to end at a shutdown.", 0)
    shutdown_delay_seconds: float = _flag(
        0, "Seconds before a shutdown in which the server reports not ready and still answers all requests.", 0
    )
    enable_serialization_as_tensor_content: bool = _flag(
        False, "Answer over gRPC with tensor_content instead of float_val and the like."
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
