"""Ray Serve: replicas of the server behind Ray's proxies, on this machine or in a cluster."""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from serving import flags
from serving.engines.ray_cluster import connect
from serving.engines.table import Kind, Protects, Table, check
from serving.errors import Code, ServingError, invalid_argument, needing
from serving.options import Options
from serving.process import Interruptions, check_ports, notify, watchdog_interval

_ALL_ADDRESSES = "0.0.0.0"
_MOST_ONGOING = 10_000  # requests in a replica, which refuses by itself what is too much
_HEALTH_PERIOD = 2.0  # seconds until a replica that has died is missed
_APPLICATION = "serving"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.engines.ray_proxy.middlewares",
    "RAY_SERVE_PROXY_USE_GRPC": "1",  # between proxies and replicas: twice as many requests per second
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "2147483647",  # bytes; the server has a limit of its own
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # no threads of Ray's beside the server's, logs in blocks
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",  # the line above turns it on; requests would not be sent again
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # replicas see the GPUs that this process sees
}
"""Variables for Ray's processes, unless they are set. A cluster that is joined has its own."""
_PATHS = (
    "model_base_path",
    "model_config_file",
    "tensorflow_session_config_file",
    "batching_parameters_file",
    "monitoring_config_file",
    "auth_token_file",
    "request_log_dir",
)

TABLE: Table = {
    **{field.name: Kind.OWN for field in dataclasses.fields(Options)},
    **dict.fromkeys(
        ("engine", "host", "port", "rest_api_port", "ray_min_replicas", "ray_max_replicas", "ray_address"), Kind.ENGINE
    ),
    **dict.fromkeys(
        ("rest_api_opens_while_loading", "enable_grpc_reflection", "enable_profiler", "shutdown_delay_seconds"),
        Kind.WITHOUT_EFFECT,
    ),
    "grpc_socket_path": Protects("", "has no UNIX socket"),
    "grpc_channel_arguments": Protects("", "takes no arguments of gRPC"),
    "ssl_config_file": Protects("", "has no TLS for the gRPC API"),
    "rest_api_ssl_config_file": Protects("", "has no TLS for the REST API"),
    "rest_api_max_connections": Protects(0, "takes any number of connections"),
    "rest_api_max_connections_per_address": Protects(0, "takes any number of connections"),
    "grpc_max_connections": Protects(0, "takes any number of connections"),
}


def serve(command_line: flags.CommandLine, interruptions: Interruptions) -> int:
    """Serves until a signal ends it. Returns the exit status. Raises ServingError if it cannot start."""
    flags.warn_of_ignored(command_line)
    options = _with_absolute_paths(command_line.options)
    options.check()
    _check(options)
    check(TABLE, command_line, "Ray Serve")
    check_ports(options)
    notify("STATUS=Starting Ray and loading the models")
    output = sys.stdout
    with redirect_stdout(sys.stderr), _connected(options), _deployed(options):  # as Ray writes its log to both
        for line in _addresses(options):
            print(line, file=output, flush=True)
        notify("READY=1", "STATUS=Serving")
        status = interruptions.wait(watchdog_interval(), lambda: notify("WATCHDOG=1"))
        notify("STOPPING=1", "STATUS=Answering the requests in flight")
    return status


def _with_absolute_paths(options: Options) -> Options:
    paths = {name: os.path.abspath(path) for name in _PATHS if (path := getattr(options, name))}
    if options.access_log not in ("", "-"):
        paths["access_log"] = os.path.abspath(options.access_log)
    return dataclasses.replace(options, **paths)


def _check(options: Options) -> None:
    if options.port and options.host != _ALL_ADDRESSES:
        raise invalid_argument(
            f"--host={options.host}: Ray's gRPC proxy listens on all addresses; give --host={_ALL_ADDRESSES} if it "
            "may, or --port=0, which turns the gRPC API off"
        )
    if options.port and options.port == options.rest_api_port:
        raise invalid_argument(f"--rest_api_port={options.port} is the port of the gRPC API; give another port")
    if 0 < options.ray_max_replicas < options.ray_min_replicas:
        raise invalid_argument(
            f"--ray_max_replicas={options.ray_max_replicas} is less than --ray_min_replicas={options.ray_min_replicas}"
        )


@contextmanager
def _connected(options: Options) -> Iterator[None]:
    """Starts Ray, or joins a cluster. Ray ends with this process, even if that is killed."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not options.ray_address:  # ports of Ray listen on all addresses
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with needing("ray"):
        import ray
        import ray.serve

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    started: Mapping[str, Any] = {
        "include_dashboard": False,
        "num_cpus": max(os.cpu_count() or 1, options.ray_min_replicas, options.ray_max_replicas),
    }
    try:
        connect(
            options.ray_address or "local",
            logging_level=logging.CRITICAL,
            **({} if options.ray_address else started),
        )
    except Exception as error:  # a bare one, for one, if a process of Ray did not start in time
        where = f"join the Ray cluster at --ray_address={options.ray_address}" if options.ray_address else "start Ray"
        raise ServingError(Code.UNAVAILABLE, f"Cannot {where}: {error}") from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    for number, handler in handlers.items():  # Ray sets its own
        signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _deployed(options: Options) -> Iterator[None]:
    """Runs the replicas. At the end requests in flight end first. Raises ServingError if no replica can serve."""
    from ray import serve
    from ray.serve.schema import LoggingConfig

    if serve.status().proxies:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Ray Serve runs already in the cluster at --ray_address={options.ray_address}, on ports of its own; "
            "end it with `serve shutdown`",
        )
    quiet = LoggingConfig(enable_access_log=False)
    try:
        serve.start(
            http_options={
                "host": options.host if options.rest_api_port else "127.0.0.1",
                "port": options.rest_api_port,
            },
            grpc_options={
                "port": options.port,
                "grpc_servicer_functions": ["serving.engines.ray_proxy.add_services"] if options.port else [],
                "enable_reflection": False,
            },
            logging_config=quiet,
        )
        _run(options, quiet)
        yield
        serve.delete(_APPLICATION)
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]


def _run(options: Options, logging_config: Any) -> None:
    from ray import serve

    from serving.engines.ray_deployment import Replica

    deployment: Any = serve.deployment(
        Replica,
        **_scale(options),
        max_ongoing_requests=_MOST_ONGOING,
        max_constructor_retry_count=1,
        health_check_period_s=_HEALTH_PERIOD,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=options.shutdown_grace_seconds,
        ray_actor_options={"num_cpus": 1},
        logging_config=logging_config,
    )
    try:
        # Ray's gRPC proxy knows only applications with a route. Without --rest_api_port a proxy has one of its own,
        # at a free port of 127.0.0.1.
        serve.run(deployment.bind(options), name=_APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise _reason_of(error) from error


def _reason_of(error: RuntimeError) -> ServingError:
    """The error of the replica that could not start, which Ray has in the deployment's status."""
    from ray import serve

    from serving.engines.ray_deployment import FAILED

    deployments = serve.status().applications[_APPLICATION].deployments.values()
    _, found, reason = "\n".join(each.message for each in deployments).partition(FAILED)
    text = reason.partition("\n")[0] if found else f"Ray Serve has no replica: {error}"
    code, _, message = text.partition(": ")
    return ServingError(Code[code], message) if code in Code.__members__ else ServingError(Code.UNAVAILABLE, text)


def _scale(options: Options) -> dict[str, Any]:
    least, most = options.ray_min_replicas, options.ray_max_replicas or options.ray_min_replicas
    if least == most:
        return {"num_replicas": least}
    # Another replica is due when requests begin to wait for threads.
    scale = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": options.grpc_max_threads}
    return {"autoscaling_config": scale}


def _addresses(options: Options) -> Iterator[str]:
    if options.port:
        yield f"Running gRPC ModelServer at {options.host}:{options.port} ..."
    if options.rest_api_port:
        yield f"Exporting HTTP/REST API at:{options.host}:{options.rest_api_port} ..."
