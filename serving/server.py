"""The server: a repository, a service and the two transports, wired together."""

import logging
import socket
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import grpc

from serving.admission import certificates
from serving.admission.policy import Policy
from serving.admission.readiness import Phase, Readiness
from serving.api.service import Service
from serving.background import FileWatcher
from serving.options import Options
from serving.process import bind
from serving.rest.app import RestApp
from serving.rest.asgi_server import AsgiServer
from serving.rest.connection import Limits
from serving.rest.description import sample_command
from serving.rpc.server import GrpcServer

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

    from serving.rest.connection import Refused

logger = logging.getLogger("serving")

_THIS_MACHINE = ("127.0.0.1", "0.0.0.0", "::1", "::")


class Server:
    """A model server in this process; `with Server(options) as server:` starts and stops it.

    With `pick_free_ports` both transports are on, each at a port that the system picks; `grpc_port` and
    `rest_port` say which (0 where a transport is off).
    """

    def __init__(self, options: Options, pick_free_ports: bool = False) -> None:
        self._options = options
        self._pick_free_ports = pick_free_ports
        self.service = Service(options)
        self._readiness = Readiness(self.service.repository.availability, names_models=not options.auth_token_file)
        self._watcher = FileWatcher()
        self._policy = Policy(options, self.service.metrics, self._watcher)
        self._grpc_tls = self._rest_tls = None
        if options.ssl_config_file:
            first = certificates.read_config(options.ssl_config_file)
            read = partial(certificates.read_config, client_verify=first.client_verify)
            self._grpc_tls = self._watcher.watch(options.ssl_config_file, read)
        if options.rest_api_ssl_config_file:
            self._rest_tls = self._watcher.watch(options.rest_api_ssl_config_file, certificates.read_context)
        self.app = RestApp(self.service, options, self._policy, self._readiness)
        self._grpc = GrpcServer(self.service, options, self._policy)
        self._rest: AsgiServer | None = None
        self.rest_port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Loads the models, then opens the ports. Raises ServingError where it cannot."""
        options = self._options
        options.check()
        with ExitStack() as on_failure:
            on_failure.callback(self.stop, grace=0)
            # Bound before the slow load, so that a port that is taken shows at once, but not listening before
            # there is a model unless that is asked for: clients take a port that is open for a server that answers.
            grpc_socket = on_failure.enter_context(self._bind(options.port, "port"))
            rest_socket = on_failure.enter_context(self._bind(self._wanted_rest_port(), "rest_api_port"))
            self._watcher.start()
            self._policy.start()
            if rest_socket is not None and options.rest_api_opens_while_loading:
                self._open_rest(rest_socket)
            self.service.start()
            if rest_socket is not None and self._rest is None:
                self._open_rest(rest_socket)
            self._grpc.start(grpc_socket, options.grpc_socket_path, self._grpc_credentials)
            self._readiness.phase = Phase.SERVING
            on_failure.pop_all()

    def stop(self, grace: float | None = None) -> bool:
        """Closes the ports, lets requests in flight end, unloads. Returns whether all ended in time.

        The time of grace, in seconds, is that of the options unless another one is given.
        """
        grace = self._options.shutdown_grace_seconds if grace is None else grace
        self.service.stop_following()
        self._leave()
        end = time.monotonic() + grace
        self._readiness.phase = Phase.DRAINING
        self._grpc.stop(grace)
        if self._rest is not None:
            self._rest.stop(max(0, end - time.monotonic()))
        self._grpc.join()
        ended = self.service.stop(max(0, end - time.monotonic()))
        self._grpc.threads.shutdown(wait=ended)
        self.app.close(wait=ended)
        self._watcher.stop()
        self._policy.stop()
        return ended

    def _leave(self) -> None:
        """Tells those who probe that nothing new should come, and gives them the time to hear it."""
        self._grpc.leave()
        if self._readiness.phase is Phase.SERVING:
            self._readiness.phase = Phase.LEAVING
            time.sleep(self._options.shutdown_delay_seconds)

    @property
    def grpc_port(self) -> int:
        """The port of the gRPC API."""
        return self._grpc.port

    def addresses(self) -> list[str]:
        """Where it listens, in TensorFlow Serving's words."""
        host = self._options.host
        lines = []
        if self.grpc_port:
            lines.append(f"Running gRPC ModelServer at {host}:{self.grpc_port} ...")
        if self._options.grpc_socket_path:
            lines.append(f"Running gRPC ModelServer at UNIX socket {self._options.grpc_socket_path} ...")
        if self.rest_port:
            lines.append(f"Exporting HTTP/REST API at:{host}:{self.rest_port} ...")
        return lines

    def invitations(self) -> list[str]:
        """The console's address, and a command that asks a model; nothing without a REST API."""
        options = self._options
        if not self.rest_port:
            return []
        host = "localhost" if options.host in _THIS_MACHINE else options.host
        root = f"{'https' if options.rest_api_ssl_config_file else 'http'}://{host}:{self.rest_port}"
        command = sample_command(self.service, root, bool(options.auth_token_file))
        return [*([f"Console at {root}/"] if options.console else []), *([f"Try: {command}"] if command else [])]

    def _wanted_rest_port(self) -> int:
        port = self._options.rest_api_port
        if port and port == self._options.port:
            logger.error(
                "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API. "
                "Skipped exporting HTTP/REST API."
            )
            return 0
        return port

    def _bind(self, port: int, flag: str) -> AbstractContextManager[socket.socket | None]:
        if self._pick_free_ports:
            return bind(self._options.host, 0, flag)
        return bind(self._options.host, port, flag) if port else nullcontext()

    def _open_rest(self, bound: socket.socket) -> None:
        options = self._options
        limits = Limits(
            connections=options.rest_api_max_connections,
            connections_per_address=options.rest_api_max_connections_per_address,
        )
        self.rest_port = bound.getsockname()[1]
        tls = certificates.CurrentContext(self._rest_tls) if self._rest_tls else None
        app, refused = cast("ASGI3Application", self.app), cast("Refused", self.app.note_refused)
        self._rest = AsgiServer(app, bound, options.shutdown_grace_seconds, limits, tls, refused)
        self._rest.start()

    def _grpc_credentials(self) -> grpc.ServerCredentials | None:
        return certificates.grpc_credentials(self._grpc_tls) if self._grpc_tls else None
