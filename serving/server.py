"""The server: a repository, a service and the two transports, wired together."""

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

from serving.errors import Code, ServingError
from serving.flags import Options
from serving.http_server import HttpServer
from serving.model import Model, load
from serving.repository import ModelConfig, Repository
from serving.request import ModelSpec
from serving.rest import RestApplication
from serving.rpc import make_server
from serving.service import Service
from serving.startup import bind, check_directory, check_ports
from serving.versions import State
from serving.warmup import warm_up

logger = logging.getLogger("serving")

GRACE = 10.0  # seconds that requests in flight have when the server stops


class Server:
    """A model server in this process; `with Server(options) as server:` starts and stops it.

    With `pick_free_ports` both transports are on, each at a port that the system picks; `grpc_port` and
    `rest_port` say which (0 where a transport is off).
    """

    def __init__(self, options: Options, pick_free_ports: bool = False) -> None:
        self._options = options
        self._pick_free_ports = pick_free_ports
        config = ModelConfig(options.model_name, Path(options.model_base_path).absolute())
        self._repository = Repository([config], self._load, options.file_system_poll_wait_seconds)
        self._service = Service(self._repository)
        self._grpc_threads = ThreadPoolExecutor(options.grpc_max_threads, "grpc")
        self._rest_threads = ThreadPoolExecutor(options.rest_api_num_threads, "rest")
        self._grpc = make_server(self._service, self._grpc_threads)
        self._http: HttpServer | None = None
        self.grpc_port = 0
        self.rest_port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Loads the model, then opens the ports. Raises ServingError where it cannot."""
        options = self._options
        if not self._pick_free_ports:
            check_ports(options)
        check_directory(options.model_base_path)
        with ExitStack() as on_failure:
            on_failure.callback(self.stop, grace=0)
            # Bound before the slow load, so that a port that is taken shows at once, but not listening before
            # there is a model: who can connect may ask.
            grpc_socket = on_failure.enter_context(self._bind(options.port, "port"))
            rest_socket = on_failure.enter_context(self._bind(options.rest_api_port, "rest_api_port"))
            self._repository.start()
            self._check_loaded()
            if rest_socket is not None:
                self._open_rest(rest_socket)
            if grpc_socket is not None:
                self._open_grpc(grpc_socket)
            on_failure.pop_all()

    def stop(self, grace: float = GRACE) -> bool:
        """Closes the ports, lets requests in flight end, unloads. Returns whether all ended in time."""
        stopped = self._grpc.stop(grace)
        if self._http is not None:
            self._http.stop()
        stopped.wait()
        ended = self._repository.stop(grace)
        self._grpc_threads.shutdown(wait=ended)
        self._rest_threads.shutdown(wait=ended)
        return ended

    def _load(self, directory: Path) -> Model:
        model = load(directory, self._options.saved_model_tags.split(","))
        if self._options.enable_model_warmup:
            try:
                warm_up(model, directory)
            except BaseException:
                model.close()
                raise
        return model

    def _check_loaded(self) -> None:
        if self._options.file_system_poll_wait_seconds < 0:
            return  # nothing was to be loaded
        statuses = self._service.status(ModelSpec(self._options.model_name))
        if not any(status.state == State.AVAILABLE for status in statuses):
            failed = statuses[0]
            raise ServingError(
                failed.code,
                f"Version {failed.version} under --model_base_path={self._options.model_base_path} "
                f"failed to load: {failed.message}",
            )

    def _bind(self, port: int, flag: str) -> AbstractContextManager[socket.socket | None]:
        if self._pick_free_ports:
            return bind(self._options.host, 0, flag)
        return bind(self._options.host, port, flag) if port else nullcontext()

    def _open_rest(self, bound: socket.socket) -> None:
        application = RestApplication(self._service, self._rest_threads, self._options.rest_api_timeout_in_ms / 1000)
        self.rest_port = bound.getsockname()[1]
        self._http = HttpServer(application, bound, GRACE)
        self._http.start()

    def _open_grpc(self, bound: socket.socket) -> None:
        host, port = bound.getsockname()[:2]
        bound.close()  # gRPC takes no socket, only an address
        address = f"[{host}]" if ":" in host else host
        try:
            self.grpc_port = self._grpc.add_insecure_port(f"{address}:{port}")
        except RuntimeError as error:
            raise ServingError(Code.UNAVAILABLE, f"Cannot listen on --port={port}: {error}") from error
        self._grpc.start()
