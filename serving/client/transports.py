"""The transport that a URL asks for. The library of the other one is not imported."""

from serving.client.connection import Server
from serving.client.wire import AsyncTransport, Transport
from serving.extras import needing


def open_transport(server: Server) -> Transport:
    """The transport that a URL asks for. Raises MissingPackageError where its library is not installed."""
    with needing("client"):
        if server.is_grpc:
            from serving.client.grpc_transport import GrpcTransport

            return GrpcTransport(server)
        from serving.client.rest_transport import RestTransport

        return RestTransport(server)


def open_async_transport(server: Server) -> AsyncTransport:
    """The transport that a URL asks for, for an event loop. Raises MissingPackageError as `open_transport` does."""
    with needing("client"):
        if server.is_grpc:
            from serving.client.grpc_transport import AsyncGrpcTransport

            return AsyncGrpcTransport(server)
        from serving.client.rest_transport import AsyncRestTransport

        return AsyncRestTransport(server)
