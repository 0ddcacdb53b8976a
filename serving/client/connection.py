"""Where a server is and how it is trusted: what is told to a client once."""

import pathlib
import ssl
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

_GRPC_PORT = 8500  # TensorFlow Serving's
_GRPC = {"grpc": False, "grpcs": True, "unix": False}  # and whether under TLS
_REST = ("http", "https")


@dataclass(frozen=True)
class Tls:
    """PEM files: whom to trust, in place of the well-known authorities, and what to show a server that asks."""

    ca: str | pathlib.Path | None = None
    certificate: str | pathlib.Path | None = None
    key: str | pathlib.Path | None = None

    def context(self) -> ssl.SSLContext:
        """Them for Python's sockets. Raises OSError where a file cannot be read, ssl.SSLError where it is no PEM."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authorities, key and certificate, as gRPC takes them. Raises OSError where a file cannot be read."""
        ca, key, certificate = (
            None if path is None else pathlib.Path(path).read_bytes() for path in (self.ca, self.key, self.certificate)
        )
        return ca, key, certificate


class Server(NamedTuple):
    """A server's address, and what it is asked with."""

    url: str
    tls: Tls | None = None
    token: str | None = None

    @property
    def is_grpc(self) -> bool:
        """Whether it is asked over gRPC. Raises ValueError where the URL is of neither kind."""
        scheme = urlsplit(self.url).scheme
        if scheme not in (*_GRPC, *_REST):
            raise ValueError(f"{self.url}: give grpc://host:8500, grpcs://, unix:/path, http://host:8501 or https://")
        return scheme in _GRPC

    @property
    def has_tls(self) -> bool:
        """Whether gRPC goes under TLS."""
        return _GRPC[urlsplit(self.url).scheme]

    @property
    def target(self) -> str:
        """The address as gRPC writes it."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return f"unix:{parts.path}"
        return parts.netloc if parts.port else f"{parts.netloc}:{_GRPC_PORT}"
