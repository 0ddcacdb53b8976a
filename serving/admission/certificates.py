"""TLS for both transports, as SSLConfigs in files ask for it. New connections see a certificate that has changed."""

import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc

from serving.background import WatchedFile
from serving.errors import Code, ServingError, invalid_argument
from serving.wire.protos import SSLConfig, read_text


def read_config(path: str) -> Any:
    """An SSLConfig whose key and certificates fit together. Raises ServingError where they do not."""
    config = read_text(path, SSLConfig)
    if config.client_verify and not config.custom_ca:
        raise invalid_argument(f"{path}: Illegal to require client auth without providing root certificates!")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # what gRPC's own TLS makes of a short key is its own matter
    _fill(context, config, path)
    return config


def keeping_client_verify(first: Any) -> Callable[[str], Any]:
    """Reads like `read_config`; for gRPC, which is told but once whether clients must show certificates."""

    def read(path: str) -> Any:
        config = read_config(path)
        if config.client_verify != first.client_verify:
            raise invalid_argument(f"{path}: client_verify changes with a restart only")
        return config

    return read


def grpc_credentials(file: WatchedFile[Any]) -> grpc.ServerCredentials:
    """Credentials for one address to listen on: each has to be told of a change by itself."""
    told = file.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal told
        if file.value is told:
            return None
        told = file.value
        return _grpc_configuration(told)

    return grpc.dynamic_ssl_server_credentials(
        _grpc_configuration(told),
        fetch,  # type: ignore[arg-type]  # gRPC says that None stands for no change, its types do not
        require_client_authentication=told.client_verify,
    )


def read_context(path: str) -> ssl.SSLContext:
    """TLS 1.2 or later and HTTP/1.1. Raises ServingError where a config cannot be followed."""
    config = read_config(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _fill(context, config, path)
    return context


class CurrentContext(ssl.SSLContext):
    """Stands before the context that a file holds now: event loops keep the one they were given."""

    file: WatchedFile[ssl.SSLContext]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """What an event loop calls for each connection."""
        return self.file.value.wrap_bio(*args, **kwargs)


def current_context(file: WatchedFile[ssl.SSLContext]) -> ssl.SSLContext:
    """A context for an event loop, of which each new connection sees what the file holds by then."""
    context = CurrentContext(ssl.PROTOCOL_TLS_SERVER)
    context.file = file
    return context


def _grpc_configuration(config: Any) -> grpc.ServerCertificateConfiguration:
    pair = (config.server_key.encode(), config.server_cert.encode())
    return grpc.ssl_server_certificate_configuration([pair], config.custom_ca.encode() or None)


def _fill(context: ssl.SSLContext, config: Any, path: str) -> None:
    try:
        # OpenSSL reads keys from files alone; nobody else can read this one, which is gone at once.
        with tempfile.TemporaryDirectory() as name:
            pem = Path(name, "server.pem")
            pem.write_text(f"{config.server_key}\n{config.server_cert}")
            context.load_cert_chain(pem, password="")  # a key that has a password must not ask for it
        if config.client_verify:
            context.load_verify_locations(cadata=config.custom_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, ValueError) as error:
        reason = cast(str, getattr(error, "reason", None) or str(error))
        raise invalid_argument(f"{path}: no key and certificates that fit together: {reason}") from error
    except OSError as error:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED, f"{path}: no temporary file to read the key from: {error.strerror}"
        ) from error
