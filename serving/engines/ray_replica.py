"""The server in a replica of Ray Serve: a repository, a service and both transports without sockets."""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import grpc
from grpc_health.v1 import health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.admission.policy import Policy
from serving.admission.readiness import Phase, Readiness
from serving.admission.threads import RequestThreads
from serving.api.service import Service
from serving.background import FileWatcher
from serving.call import GRPC
from serving.engines.ray_proxy import TIME_KEY
from serving.errors import Code, ServingError
from serving.options import Options
from serving.rest.app import RestApp
from serving.rpc.health import Health
from serving.rpc.interceptor import Interceptor
from serving.rpc.servicers import ModelServicer, PredictionServicer


class Answer(NamedTuple):
    """The answer to a call, which Ray's proxy gets as bytes."""

    code: int
    content: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802
        """The status in a byte, and then the message, or the text of the error."""
        return bytes((self.code,)) + self.content


class ReplicaServer:
    """Answers as serving.server.Server does. Made and used in an event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._service = Service(options)
        self._readiness = Readiness(self._service.repository.availability, names_models=not options.auth_token_file)
        self._watcher = FileWatcher()
        self._policy = Policy(options, self._service.metrics, self._watcher)
        self.app = RestApp(self._service, options, self._policy, self._readiness)
        self._threads = RequestThreads(options.grpc_max_threads, "grpc")
        self._service.gauges.watch(GRPC, self._threads)
        self._interceptor = Interceptor(self._policy, self._threads)
        self._methods = _methods(self._service, options)

    def start(self) -> None:
        """Loads the models. Raises ServingError where it cannot."""
        self._watcher.start()
        self._policy.start()
        self._service.start()
        self._readiness.phase = Phase.SERVING

    def stop(self) -> None:
        """Lets requests in flight end within the options' time of grace, and unloads."""
        self._readiness.phase = Phase.DRAINING
        ended = self._service.stop(self._options.shutdown_grace_seconds)
        self._threads.shutdown(wait=ended)
        self.app.close(wait=ended)
        self._watcher.stop()
        self._policy.stop()

    async def answer(self, path: str, message: bytes, context: Any) -> Answer:
        """Answers a call of a method, by its path, with Ray's context."""
        call = _Context(message, context, self._options.grpc_max_message_bytes)
        details: Any = _Details(path)
        handler: Any = await self._interceptor.intercept_service(self._methods.find, details)
        if handler is None:
            return Answer(Code.UNIMPLEMENTED, b"Method not found!")
        try:
            if handler.response_streaming:
                await handler.stream_stream(None, call)
                return Answer(Code.OK, call.written)
            return Answer(Code.OK, await handler.stream_unary(None, call))
        except _AbortError as error:
            return error.answer


class _Details(NamedTuple):
    method: str


class _Methods:
    """The handlers of all methods; the functions that add servicers to a server take it for one."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds the methods of a service."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Does nothing: the other function gets the same ones."""

    async def find(self, details: Any) -> Any:
        """The handler of a method; None if there is none."""
        return next(filter(None, (each.service(details) for each in self._handlers)), None)


def _methods(service: Service, options: Options) -> _Methods:
    methods = _Methods()
    server: Any = methods
    prediction = PredictionServicer(service, options.enable_serialization_as_tensor_content)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model = _ModelServicer(service, options.enable_reload_config_request)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(model, server)
    if options.enable_grpc_healthcheck_service:
        health = Health(service.repository.availability, asyncio.get_running_loop())
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return methods


class _ModelServicer(ModelServicer):
    def HandleReloadConfigRequest(self, request: Any, call: Any) -> Any:  # noqa: N802
        if not self._may_reload:
            return super().HandleReloadConfigRequest(request, call)
        raise ServingError(
            Code.UNIMPLEMENTED,
            "A request reaches one replica of several. Change --model_config_file, which all follow.",
        )


class _AbortError(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class _Context:
    """A call that Ray's proxy has received whole, as the interceptor knows calls of gRPC."""

    def __init__(self, message: bytes, context: Any, largest: int) -> None:
        self._message = message
        self._context = context
        self._largest = largest
        self.written = b""
        self.peer = context.peer
        self.invocation_metadata = context.invocation_metadata

    async def read(self) -> bytes:
        """Returns the message. Raises RESOURCE_EXHAUSTED, in gRPC's words, if it is too large."""
        if len(self._message) > self._largest:
            reason = f"Received message larger than max ({len(self._message)} vs. {self._largest})"
            raise ServingError(Code.RESOURCE_EXHAUSTED, reason)
        return self._message

    async def write(self, response: Any) -> None:
        """Keeps the message of the answer."""
        self.written = response.SerializeToString()

    def time_remaining(self) -> float | None:
        """Seconds that the client waits yet; None if it waits for ever."""
        seconds = [value for key, value in self.invocation_metadata() if key == TIME_KEY]
        return float(seconds[0]) if seconds else None

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Sends metadata with the answer."""
        self._context.set_trailing_metadata(list(metadata))

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """Ends the call with a status."""
        raise _AbortError(Answer(code.value[0], details.encode()))
