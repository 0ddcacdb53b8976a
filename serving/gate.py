"""What stands between the network and the service, as options ask for it: TLS and tokens."""

import ipaddress
import logging
import ssl
from collections.abc import Sequence

import grpc

from serving import certificates, tokens
from serving.grpc_authorization import Authorization
from serving.http_server import Application
from serving.options import Options
from serving.rest_authorization import AuthorizedApplication
from serving.watched_files import FileWatcher

logger = logging.getLogger("serving")


class Gate:
    """Who may come in, and how. Raises ServingError where a file that an option names cannot be followed."""

    def __init__(self, options: Options) -> None:
        self._watcher = FileWatcher()
        self._grpc_config = self._rest_context = None
        if options.ssl_config_file:
            first = certificates.read_config(options.ssl_config_file)
            self._grpc_config = self._watcher.watch(options.ssl_config_file, certificates.keeping_client_verify(first))
        if options.rest_api_ssl_config_file:
            self._rest_context = self._watcher.watch(options.rest_api_ssl_config_file, certificates.read_context)

        self._tokens = None
        if options.auth_token_file:
            self._tokens = self._watcher.watch(options.auth_token_file, tokens.read)
            _warn_of_plain_transports(options)

    def start(self) -> None:
        """Keeps up with the files from now on."""
        self._watcher.start()

    def stop(self) -> None:
        """Ends what `start` began."""
        self._watcher.stop()

    def credentials(self) -> grpc.ServerCredentials | None:
        """For one address on which gRPC listens; nothing where it is plain."""
        return certificates.grpc_credentials(self._grpc_config) if self._grpc_config else None

    def tls(self) -> ssl.SSLContext | None:
        """For the REST API; nothing where it is plain."""
        return certificates.current_context(self._rest_context) if self._rest_context else None

    def guard(self, application: Application, monitoring_path: str) -> Application:
        """The REST API, behind what its requests have to pass."""
        file = self._tokens
        return AuthorizedApplication(application, lambda: file.value, monitoring_path) if file else application

    def interceptors(self) -> Sequence[grpc.ServerInterceptor]:
        """What calls of gRPC have to pass."""
        file = self._tokens
        return [Authorization(lambda: file.value)] if file else []


def _warn_of_plain_transports(options: Options) -> None:
    plain = {
        "gRPC": options.port and not options.ssl_config_file,
        "REST": options.rest_api_port and not options.rest_api_ssl_config_file,
    }
    for transport in (name for name, is_plain in plain.items() if is_plain):
        if not _is_loopback(options.host):
            logger.warning("Tokens come over %s in the clear: only a proxy with TLS before it hides them", transport)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
