"""TLS for both transports, as SSLConfigs in files ask for it. New connections see a certificate that has changed."""

import ssl
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc

from serving.background import WatchedFile
from serving.errors import Code, ServingError, invalid_argument
from serving.wire.protos import SSLConfig, read_text


class Keys(NamedTuple):
    """An SSLConfig: PEM texts, and whether clients must show certificates of the custom CA."""

    server_key: str
    server_cert: str
    custom_ca: str
    client_verify: bool


def read_config(path: str, client_verify: bool | None = None) -> Keys:
    """An SSLConfig whose key and certificates fit together. Raises ServingError if they do not.

    It must have this `client_verify`, if one is given: gRPC takes it only once.
    """
    message = read_text(path, SSLConfig)
    config = Keys(message.server_key, message.server_cert, message.custom_ca, message.client_verify)
    if config.client_verify and not config.custom_ca:
        raise invalid_argument(f"{path}: Illegal to require client auth without providing root certificates!")
    if client_verify not in (None, config.client_verify):
        raise invalid_argument(f"{path}: client_verify changes with a restart only")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # gRPC's own TLS decides about short keys
    _fill(context, config, path)
    return config


def grpc_credentials(file: WatchedFile[Keys]) -> grpc.ServerCredentials:
    """Credentials for one address to listen on: gRPC asks for changes once per address."""
    used = file.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        if file.value is used:
            return None
        used = file.value
        return _grpc_configuration(used)

    return grpc.dynamic_ssl_server_credentials(
        _grpc_configuration(used),
        fetch,  # type: ignore[arg-type]  # gRPC says that None stands for no change, its types do not
        require_client_authentication=used.client_verify,
    )


def read_context(path: str) -> ssl.SSLContext:
    """TLS 1.2 or later and HTTP/1.1. Raises ServingError if a config cannot be followed."""
    config = read_config(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _fill(context, config, path)
    return context


class CurrentContext(ssl.SSLContext):
    """The context that a file holds now, for each new connection of an event loop, which keeps the one it was given.

    An `sni_callback` could swap contexts, too, but a connection would keep the old context's `verify_mode`.
    """

    file: WatchedFile[ssl.SSLContext]

    def __new__(cls, file: WatchedFile[ssl.SSLContext]) -> Self:
        """A context that follows a file."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context.file = file
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begins a connection, with the current context."""
        return self.file.value.wrap_bio(*args, **kwargs)


def _grpc_configuration(config: Keys) -> grpc.ServerCertificateConfiguration:
    pair = (config.server_key.encode(), config.server_cert.encode())
    return grpc.ssl_server_certificate_configuration([pair], config.custom_ca.encode() or None)


def _fill(context: ssl.SSLContext, config: Keys, path: str) -> None:
    try:
        # OpenSSL reads keys from files only; nobody else can read this one, which is deleted at once.
        with tempfile.TemporaryDirectory() as name:
            pem = Path(name, "server.pem")
            pem.write_text(f"{config.server_key}\n{config.server_cert}")
            context.load_cert_chain(pem, password="")  # a key that has a password must not ask for it
        if config.client_verify:
            context.load_verify_locations(cadata=config.custom_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise invalid_argument(f"{path}: no key and certificates that fit together: {reason}") from error
    except OSError as error:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED, f"{path}: no temporary file to read the key from: {error.strerror}"
        ) from error
