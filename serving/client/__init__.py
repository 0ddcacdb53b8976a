"""A client for this model server and for TensorFlow Serving, over REST and gRPC, without TensorFlow."""

from serving.errors import needing

with needing("client"):
    from serving.client.async_client import AsyncClient
    from serving.client.client import Client
    from serving.client.connection import Class, Retries, Tls
    from serving.errors import Code, ServingError
    from serving.wire.requests import Prediction, State, VersionStatus
    from serving.wire.signatures import Signature, TensorInfo

__all__ = [
    "AsyncClient",
    "Class",
    "Client",
    "Code",
    "Prediction",
    "Retries",
    "ServingError",
    "Signature",
    "State",
    "TensorInfo",
    "Tls",
    "VersionStatus",
]
