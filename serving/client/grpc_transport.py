"""Carries calls over gRPC."""

import functools
from typing import Any

import grpc
import grpc.aio

from serving.client.connection import Server
from serving.client.grpc_wire import GrpcRequest, GrpcWire, Method
from serving.client.wire import Wire
from serving.errors import Code, ServingError

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # the client's own know the deadline, and messages of any size
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),  # by default a server that was restarted is found after minutes
]


class GrpcTransport:
    """A channel, which connects when it is first used and again when it must."""

    def __init__(self, server: Server) -> None:
        self.wire: Wire = GrpcWire()
        self._metadata = _metadata(server)
        if server.has_tls:
            self._channel = grpc.secure_channel(server.target, _credentials(server), _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(server.target, _OPTIONS)
        self._callables: dict[Method, Any] = {}

    def send(self, request: GrpcRequest, timeout: float | None) -> Any:
        """The reply to a request. Raises ServingError with the status of a call that fails."""
        method = request.method
        callable_ = self._callables.get(method)
        if callable_ is None:
            callable_ = self._callables[method] = _unary(self._channel, method)
        try:
            return callable_(request.message, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failure(error) from error

    def close(self) -> None:
        """Ends its connections."""
        self._channel.close()


class AsyncGrpcTransport:
    """The same on an event loop: the one that runs when it is first used."""

    def __init__(self, server: Server) -> None:
        self.wire: Wire = GrpcWire()
        self._metadata = _metadata(server)
        self._server = server
        self._callables: dict[Method, Any] = {}

    @functools.cached_property
    def _channel(self) -> Any:
        if self._server.has_tls:
            return grpc.aio.secure_channel(self._server.target, _credentials(self._server), _OPTIONS)
        return grpc.aio.insecure_channel(self._server.target, _OPTIONS)

    async def send(self, request: GrpcRequest, timeout: float | None) -> Any:
        """The reply to a request. Raises ServingError with the status of a call that fails."""
        method = request.method
        callable_ = self._callables.get(method)
        if callable_ is None:
            callable_ = self._callables[method] = _unary(self._channel, method)
        try:
            return await callable_(request.message, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failure(error) from error

    async def close(self) -> None:
        """Ends its connections."""
        await self._channel.close()


def _unary(channel: Any, method: Method) -> Any:
    return channel.unary_unary(method.path, response_deserializer=method.reply.FromString)


def _metadata(server: Server) -> tuple[tuple[str, str], ...] | None:
    return None if server.token is None else (("authorization", f"Bearer {server.token}"),)


def _credentials(server: Server) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(*(server.tls.pem() if server.tls is not None else ()))


def _failure(error: Any) -> ServingError:
    return ServingError(Code[error.code().name], error.details() or "")
